//! How far the server's clock and ours are apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::duration;
use super::finding::{Code, Severity};
use super::node::{Findings, Node};
use crate::connection::{Args, Reply};
use crate::error::RedisError;

/// By how many milliseconds the server's clock is ahead; of several questions the one that was answered fastest tells best.
pub(super) async fn examine(node: &mut Node<'_>, found: &mut Findings) -> Option<i64> {
    let mut best: Option<(Duration, i64)> = None;
    for _ in 0..QUESTIONS {
        match ask(node).await {
            Ok(answer) if best.is_none_or(|best| answer.0 < best.0) => best = Some(answer),
            Ok(_) => {}
            Err(error) => {
                // If it is gone altogether, what it said before still holds.
                let _gone = node.refuse("TIME", error);
                break;
            }
        }
    }
    let (round_trip, skew) = best?;
    node.server.clock_skew_ms = Some(skew);
    // The true skew may be less by half a round trip.
    let sure = Duration::from_millis(skew.unsigned_abs()).saturating_sub(round_trip / 2);
    if sure >= CLOCK_SKEW {
        let side = if skew < 0 { "behind" } else { "ahead of" };
        let apart = duration(Duration::from_millis(skew.unsigned_abs()));
        let finding = node
            .finding(Severity::Warning, Code::ClockSkew, format!("its clock is {apart} {side} ours"))
            .means(
                "deliver_at is reached early or late by so much, and waiting times in logs and metrics are wrong; leases, delays \
                 and retries are not affected, they go by the server's clock alone",
            )
            .advice_is("synchronize both machines: chronyc makestep, timedatectl set-ntp true");
        found.add(finding);
    }
    Some(skew)
}

/// How long the answer took, and by how many milliseconds the server's clock is ahead.
async fn ask(node: &Node<'_>) -> Result<(Duration, i64), RedisError> {
    let (before, asked) = (SystemTime::now(), Instant::now());
    let answer = node.command("TIME", Args::new()).await?;
    let round_trip = Instant::now().saturating_duration_since(asked);
    let [seconds, micros] = answer.into_tuple().map(|parts: [Reply; 2]| parts)?;
    let theirs = seconds.as_integer()? * 1_000 + micros.as_integer()? / 1_000;
    // About then the server has looked at its clock.
    let ours = before + round_trip / 2;
    let ours = ours
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    Ok((round_trip, theirs - i64::try_from(ours).unwrap_or(i64::MAX)))
}

/// From so much on there is a warning.
const CLOCK_SKEW: Duration = Duration::from_secs(2);
const QUESTIONS: usize = 3;
