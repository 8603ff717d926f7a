//! Heartbeats: both sides ask twice a second, so that both notice within two seconds when the
//! other is gone.

use crate::limits::{BEAT_ANSWER_DEADLINE, BEAT_INTERVAL, SILENCE_CHECK, SILENCE_MAX};
use crate::link::Link;
use crate::rpc::blocking;
use crate::{PeerService, Refusal, Result};
use std::pin::pin;
use std::sync::Arc;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Beats until the session ends, and ends it when the peer no longer answers.
pub(crate) async fn keep_beating(link: Arc<Link>, service: Arc<dyn PeerService>) {
    let mut tick = interval(BEAT_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = link.closed() => return,
        }
        match beat(&link, &service).await {
            Ok(()) => {}
            Err(Refusal::Unreachable(reason) | Refusal::Unauthorized(reason)) => {
                return link.close(&reason);
            }
            Err(refusal) => tracing::debug!(%refusal, "a heartbeat was refused"),
        }
    }
}

/// One heartbeat. While its answer is missing, any byte from the peer on any lane proves that it
/// lives: a slow line full of content is not a dead peer.
async fn beat(link: &Arc<Link>, service: &Arc<dyn PeerService>) -> Result<()> {
    let start = Instant::now();
    let mut answer = pin!(exchange(link, service));
    let mut check = interval(SILENCE_CHECK);
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = check.tick() => {}
        }
        let (waited, silence) = (start.elapsed(), link.own().activity().silence());
        let silent = waited >= SILENCE_MAX - BEAT_INTERVAL && silence >= SILENCE_MAX;
        if silent || waited >= BEAT_ANSWER_DEADLINE {
            return Err(Refusal::Unreachable("the peer does not answer".into()));
        }
    }
}

async fn exchange(link: &Arc<Link>, service: &Arc<dyn PeerService>) -> Result<()> {
    let (asked, peer, volume) = (service.clone(), link.peer(), link.volume());
    let ours = blocking(move || asked.my_beat(peer, volume)).await?;
    // The peer's state comes with its own beats; this answer only shows that it lives.
    link.heartbeat(ours).await.map(drop)
}
