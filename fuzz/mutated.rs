//! Seeded alterations of bytes: the same in every run. The deterministic run of all decoders in the
//! ordinary tests, and the chance that other tests need, include this file by its path.

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    /// 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// `bytes` with one to four alterations: cut, longer, other bytes, extreme values.
    pub fn spoilt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len() as u64 + 1) as usize;
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
                _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
        bytes
    }
}

/// A decoder: its name, inputs that it accepts, and whether it accepts an input.
#[allow(dead_code)]
pub type Decoder = (&'static str, Vec<Vec<u8>>, fn(&[u8]) -> bool);

/// Runs each decoder over what it accepts, over alterations of that, and over noise.
#[allow(dead_code)]
pub fn run(decoders: &[Decoder], rounds: u64) {
    for (name, samples, decode) in decoders {
        assert!(!samples.is_empty(), "{name} has no sample");
        let mut dice = Dice(1);
        for sample in samples {
            assert!(decode(sample), "{name} does not accept its own sample");
            for _ in 0..rounds {
                decode(&dice.spoilt(sample));
            }
        }
        for _ in 0..rounds / 4 {
            let noise: Vec<u8> = (0..dice.below(80)).map(|_| dice.roll() as u8).collect();
            decode(&noise);
        }
    }
}

/// The first byte selects the decoder of the rest.
#[allow(dead_code)]
pub fn select(decoders: &[Decoder], bytes: &[u8]) {
    if let Some((first, rest)) = bytes.split_first() {
        let (_, _, decode) = &decoders[usize::from(*first) % decoders.len()];
        decode(rest);
    }
}

/// Puts what the decoders accept into the corpus (the first directory among the fuzzer's arguments),
/// for the fuzzer to begin with.
#[allow(dead_code)]
pub fn plant(decoders: &[Decoder]) {
    let corpus = std::env::args().skip(1).map(std::path::PathBuf::from).find(|path| path.is_dir());
    let Some(corpus) = corpus else { return };
    for (number, (name, samples, _)) in decoders.iter().enumerate() {
        for (which, sample) in samples.iter().enumerate() {
            let seed = [&[number as u8], &sample[..]].concat();
            let _ = std::fs::write(corpus.join(format!("{name} {which}")), seed);
        }
    }
}
