//! The first bytes of a lane, before HTTP/2: which session it belongs to.

use lockstep_core::VolumeId;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// 24 bytes: the volume, then the session's number, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Greeting {
    pub(crate) volume: VolumeId,
    pub(crate) session: u64,
}

impl Greeting {
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.volume.0);
        bytes[16..].copy_from_slice(&self.session.to_le_bytes());
        stream.write_all(&bytes).await?;
        stream.flush().await
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Greeting> {
        let mut volume = [0; 16];
        stream.read_exact(&mut volume).await?;
        let session = stream.read_u64_le().await?;
        Ok(Greeting { volume: VolumeId(volume), session })
    }
}
