//! The client of the shop: a few shoppers that browse, order and read reviews through their sidecar, without pause
//! but for a moment between two requests. A request counts as failed when its reply is not exactly what was asked for.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use super::app::Answer;
use super::client::{Client, Refused};
use super::shop::{self, Net, TO_REVIEWS, TO_WEB};
use super::tally::{Sighting, Tally};

/// Shoppers that browse and order, over HTTP/1.1.
const SHOPPERS: u32 = 6;

/// Readers of reviews, over gRPC.
const READERS: u32 = 2;

/// Between two requests of one of them: the point is a steady stream, not all that the machine can do.
const PAUSE: Duration = Duration::from_millis(10);

/// Every so many requests of a shopper is an order.
const ORDERS: u32 = 4;

/// Sends requests for as long as it is polled.
pub(super) async fn run(net: Net, tally: &Tally) {
    let shoppers = join_all((0..SHOPPERS).map(|number| shopper(number, net, tally)));
    // One connection each, as processes of their own would have.
    let readers = join_all((0..READERS).map(|_| reader(net, tally)));
    Box::pin(join(shoppers, readers)).await;
}

async fn shopper(number: u32, net: Net, tally: &Tally) {
    let (client, web) = (Client::http1(), net.of(shop::pod("client"), TO_WEB));
    // The shoppers do not all order at the same time.
    for turn in number.. {
        let started = Instant::now();
        let answer: Result<Answer, _> = match turn % ORDERS {
            0 => client.post_json(web, "web", "/orders", r#"{"item":"teapot","count":1}"#).await,
            _ => client.get_json(web, "web", "/").await,
        };
        tally.record(
            answer.and_then(|answer| sightings(answer, turn % ORDERS == 0)),
            started.elapsed(),
            Instant::now(),
        );
        tokio::time::sleep(PAUSE).await;
    }
}

async fn reader(net: Net, tally: &Tally) {
    let (client, sidecar) = (Client::http2(), net.of(shop::pod("client"), TO_REVIEWS));
    loop {
        let started = Instant::now();
        let outcome = client.list_reviews(sidecar, "teapot").await.and_then(|reply| match reply.reviews.len() {
            2 => Ok(vec![Sighting { replica: reply.replica, caller: reply.caller }]),
            other => Err(Refused(format!("{other} reviews instead of 2"))),
        });
        tally.record(outcome, started.elapsed(), Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
}

/// The replicas behind an answer of the web, when it says what it should.
fn sightings(answer: Answer, ordered: bool) -> Result<Vec<Sighting>, Refused> {
    let right = if ordered { answer.text == "ordered, in 27 bytes" } else { answer.text == "welcome" };
    let behind = answer.behind.filter(|behind| right && behind.text == "teapot: 3 in stock");
    let behind = behind.ok_or_else(|| Refused(format!("{} answers something else", answer.replica)))?;
    Ok(vec![
        Sighting { replica: answer.replica, caller: answer.caller },
        Sighting { replica: behind.replica, caller: behind.caller },
    ])
}
