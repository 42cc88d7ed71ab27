//! What the fuzz targets of `tests/fuzz` run that is nobody else's business; only there with the feature `fuzz`.

use serde_json::Value;

use crate::events;
use crate::metrics::Metrics;
use crate::review::Review;
use crate::settings::Injection;
use crate::webhook::Webhook;

/// The verdicts of `/inject` and `/validate` about a body; none when it is no review.
pub fn verdicts(body: &[u8]) -> Option<(Value, Value)> {
    let review = Review::read(body).ok()?;
    let (notes, _queue) = events::queue();
    let webhook = Webhook { injection: Injection::default(), native: true, metrics: Metrics::default(), notes };
    Some((webhook.inject(&review), webhook.validate(&review)))
}
