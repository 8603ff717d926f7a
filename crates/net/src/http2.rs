//! gRPC on one connection: HTTP/2 by hyper, tuned alike on both ends, so that either end of a
//! lane can be the one that calls.

use crate::limits::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, HEADER_BYTES_MAX, MESSAGE_BYTES_MAX, SEND_BUFFER_BYTES,
    STREAM_WINDOW_BYTES, STREAMS_OPEN_MAX,
};
use crate::rpc::Rpc;
use crate::session::Session;
use crate::wire::proto::lockstep_client::LockstepClient;
use crate::wire::proto::lockstep_server::LockstepServer;
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::{Service, http};

/// The calling end of a lane.
pub(crate) type Caller = LockstepClient<Channel>;

/// An HTTP/2 connection as what tonic's client wants: no reconnecting, no queue of its own.
#[derive(Clone, Debug)]
pub(crate) struct Channel(client::SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Becomes the calling end. The future drives the connection and ends with it; dropping it closes
/// the connection.
pub(crate) async fn call_on<S>(
    stream: S,
) -> hyper::Result<(Caller, impl Future<Output = hyper::Result<()>> + Send)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (channel, connection) = client::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let origin = http::Uri::from_static("https://lockstep");
    let caller = LockstepClient::with_origin(Channel(channel), origin)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Ok((caller, connection))
}

/// Becomes the serving end until the connection closes. Requests above `request_bytes_max` are
/// refused unread.
pub(crate) async fn serve_on<S>(stream: S, rpc: Rpc, request_bytes_max: usize) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = LockstepServer::new(rpc)
        .max_decoding_message_size(request_bytes_max)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(STREAMS_OPEN_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await
}

/// Runs a lane in the background for as long as its session: either ends the other.
pub(crate) fn keep_lane<F>(session: Arc<Session>, lane: &'static str, connection: F)
where
    F: Future<Output = hyper::Result<()>> + Send + 'static,
{
    tokio::spawn(async move {
        let end = tokio::select! {
            end = connection => end,
            _ = session.closed() => return,
        };
        match end {
            Ok(()) => session.close("the peer closed the connection"),
            Err(error) => session.close(&format!("the connection broke ({lane}: {error})")),
        }
    });
}
