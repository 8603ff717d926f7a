//! A line between two peers that a test can cut, stall, slow down, and open again: a TCP proxy.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the line does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// It goes through.
    Open,
    /// Connections stand, new ones are accepted, nothing goes through: half-open.
    Stalled,
    /// Connections break, new ones too.
    Cut,
    /// For good.
    Ended,
}

/// Dropping it ends it.
pub struct Line(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    to: SocketAddr,
    traffic: Mutex<Traffic>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
    bytes_per_s: AtomicU64,
    /// To the side that dials.
    bytes_back: AtomicU64,
}

impl Line {
    /// A line to `to`, open, without a limit.
    pub fn to(to: SocketAddr) -> Line {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let inner = Arc::new(Inner {
            address: listener.local_addr().expect("bound above"),
            to,
            traffic: Mutex::new(Traffic::Open),
            changed: Condvar::new(),
            open: Mutex::default(),
            bytes_per_s: AtomicU64::new(u64::MAX),
            bytes_back: AtomicU64::new(0),
        });
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || serving.serve(&listener));
        Line(inner)
    }

    /// Where it is dialled.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What it does from now on.
    pub fn set(&self, traffic: Traffic) {
        *self.0.traffic() = traffic;
        self.0.changed.notify_all();
        if matches!(traffic, Traffic::Cut | Traffic::Ended) {
            self.0.open().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }

    /// Each connection carries at most this much a second, each way.
    pub fn limit(&self, bytes_per_s: u64) {
        self.0.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Bytes that went to the side that dials, since the start.
    pub fn bytes_back(&self) -> u64 {
        self.0.bytes_back.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set(Traffic::Ended);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.0.address);
    }
}

impl Inner {
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: &Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming() {
            let traffic = *self.traffic();
            match (traffic, near) {
                (Traffic::Ended, _) => return,
                (Traffic::Cut, _) | (_, Err(_)) => {}
                (_, Ok(near)) => drop(self.connect(near)),
            }
        }
    }

    fn connect(self: &Arc<Self>, near: TcpStream) -> std::io::Result<()> {
        let far = TcpStream::connect(self.to)?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
            self.open().push(stream.try_clone()?);
        }
        let ways = [(near.try_clone()?, far.try_clone()?, false), (far, near, true)];
        for (from, to, back) in ways {
            let line = Arc::clone(self);
            std::thread::spawn(move || line.carry(from, to, back));
        }
        Ok(())
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, back: bool) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if !self.passes() || to.write_all(&buffer[..len]).is_err() {
                break;
            }
            if back {
                self.bytes_back.fetch_add(len as u64, Ordering::Relaxed);
            }
            let limit = self.bytes_per_s.load(Ordering::Relaxed) as f64;
            std::thread::park_timeout(Duration::from_secs_f64(len as f64 / limit));
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits while nothing goes through; whether the line is open then.
    fn passes(&self) -> bool {
        let stalled = |traffic: &mut Traffic| *traffic == Traffic::Stalled;
        let waited = self.changed.wait_while(self.traffic(), stalled);
        *waited.unwrap_or_else(PoisonError::into_inner) == Traffic::Open
    }
}
