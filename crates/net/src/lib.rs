//! How peers reach each other: identity, invites, TLS, lanes, and the gRPC service both sides of
//! a session offer. The only crate that knows tonic, prost and rustls.
//!
//! A daemon implements [`PeerService`], starts a [`Net`], and gets a [`Link`] for every session
//! that comes up. doc/PROTOCOL.md says what is on the wire.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod activity;
mod assembly;
mod batch_order;
mod dial;
mod entropy;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod greeting;
mod heartbeat;
mod http2;
mod identity;
mod invite;
mod invite_book;
mod lane;
mod limits;
mod link;
mod message;
mod net;
mod peers;
mod private_file;
mod quiet;
mod refusal;
mod rpc;
mod service;
mod session;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

pub use identity::{Identity, IdentityError};
pub use invite::{Invite, InviteCodeError};
pub use invite_book::{InviteBook, InviteBookError, InviteRefusal};
pub use lane::Lane;
pub use limits::{MESSAGE_BYTES_MAX, XATTRS_TOTAL_BYTES_MAX};
pub use link::{ContentStream, Link};
pub use message::{
    Ack, BarrierReply, BarrierRequest, Batch, Beat, Hello, Notification, PROTOCOL, PairGrant,
    PairRequest,
};
pub use net::Net;
pub use refusal::{Refusal, Result};
pub use service::PeerService;
