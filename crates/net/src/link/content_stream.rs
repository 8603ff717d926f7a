//! Bytes of a content on their way in. Ends early only with an error: a short file is never
//! mistaken for a whole one.

use super::{ended, failed, too_slow};
use crate::limits::STREAM_IDLE_DEADLINE;
use crate::session::Session;
use crate::wire::{WireError, proto};
use crate::{Refusal, Result};
use bytes::Bytes;
use lockstep_core::limits::STREAM_MESSAGE_BYTES;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;

/// Consecutive pieces, exactly as many bytes as were asked for in all, or an error as the last
/// item. Pieces have at most 256 KiB.
pub struct ContentStream {
    inner: tonic::Streaming<proto::ReadResponse>,
    session: Arc<Session>,
    missing_bytes: u64,
    /// Runs while `waiting`: time the taker spends elsewhere is not the peer's.
    idle: Pin<Box<Sleep>>,
    waiting: bool,
    finished: bool,
}

impl ContentStream {
    pub(super) fn new(
        inner: tonic::Streaming<proto::ReadResponse>,
        session: Arc<Session>,
        missing_bytes: u64,
    ) -> Self {
        let idle = Box::pin(tokio::time::sleep(STREAM_IDLE_DEADLINE));
        ContentStream { inner, session, missing_bytes, idle, waiting: false, finished: false }
    }

    fn accept(&mut self, data: Bytes) -> Result<Bytes> {
        let len = data.len() as u64;
        if data.len() > STREAM_MESSAGE_BYTES || len > self.missing_bytes {
            return Err(WireError::new("content", "has more bytes than were asked for").into());
        }
        self.missing_bytes -= len;
        self.waiting = false;
        Ok(data)
    }

    fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.waiting {
            self.waiting = true;
            self.idle.as_mut().reset(Instant::now() + STREAM_IDLE_DEADLINE);
        }
        self.idle.as_mut().poll(cx).is_ready()
    }

    fn end(&self) -> Option<Result<Bytes>> {
        if self.missing_bytes == 0 {
            return None;
        }
        Some(Err(match self.session.is_closed() {
            true => ended(&self.session),
            false => Refusal::Internal("the peer stopped in the middle of a content".into()),
        }))
    }
}

impl Stream for ContentStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let item = match Pin::new(&mut self.inner).poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => Some(self.accept(piece.data)),
            Poll::Ready(Some(Err(status))) => Some(Err(failed(&self.session, status))),
            Poll::Ready(None) => self.end(),
            Poll::Pending if self.is_too_slow(cx) => Some(Err(too_slow(STREAM_IDLE_DEADLINE))),
            Poll::Pending => return Poll::Pending,
        };
        self.finished = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

impl fmt::Debug for ContentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentStream({} bytes missing)", self.missing_bytes)
    }
}
