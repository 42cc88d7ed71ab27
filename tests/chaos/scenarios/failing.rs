//! Applications that fail: all of them, one of them, and one that is only slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tulle_testing::client::Raw;
use tulle_testing::control::Service;
use tulle_testing::upstream::{Reply, Upstream};

use super::load::Load;
use super::races::{all, until};
use super::{Outcome, Scale, mesh};

/// Everything fails and everything may be tried again: the application is asked at most 1.2 times as often, and ten
/// times a second more.
pub(crate) async fn retry_storm(scale: Scale) -> Outcome {
    let time = scale.pick(Duration::from_secs(3), Duration::from_secs(30));
    let control = mesh::control().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let app = Upstream::http1(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Reply::status(503, &[], "no")
    })
    .await;
    control.publish(&Service::http(&mesh::name("app")).endpoint(&app.addr().to_string(), None).retry("5xx", 2));
    let sidecar = mesh::client(&control, &["app"]).await;
    let addr = sidecar.outbound(&mesh::name("app"));
    let (made, started) = (AtomicUsize::new(0), Instant::now());
    let client = || async {
        let mut client = Raw::connect(addr).await;
        while started.elapsed() < time {
            client.exchange("GET", "/", "app.shop").await;
            made.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    all((0..8).map(|_| client()).collect()).await;
    let (made, asked) = (made.into_inner(), asked.load(Ordering::SeqCst));
    let overflow = mesh::metric(&sidecar, "tulle_retry_budget_exhausted_total").await;
    let seconds = started.elapsed().as_secs_f64();
    let ratio = asked as f64 / made as f64;
    let note = format!(
        "all failed for {seconds:.0} s; {ratio:.2} times as many reached the application; {overflow} retries refused"
    );
    let mut outcome = Outcome { requests: made, wrong: Vec::new(), note };
    // What may be saved up before (`forward/retry.rs`) comes on top, once.
    let most = made as f64 * 1.2 + seconds * 10.0 + 30.0;
    outcome.check((asked as f64) <= most, || {
        format!("{asked} requests reached the application for {made}, {most:.0} at most")
    });
    outcome.check(overflow > 0.0, || "no refused retry was counted".to_owned());
    outcome
}

/// One of three answers 503: it is left alone soon, asked again one request at a time, and is back when it serves.
pub(crate) async fn outlier(scale: Scale) -> Outcome {
    let time = scale.pick(Duration::from_secs(4), Duration::from_secs(20));
    let control = mesh::control().await;
    let (broken, hits) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
    let (state, counter) = (Arc::clone(&broken), Arc::clone(&hits));
    let bad = Upstream::http1(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        if state.load(Ordering::SeqCst) == 1 { Reply::status(503, &[], "no") } else { Reply::ok("hello") }
    })
    .await;
    let good = [Upstream::http1(|_| Reply::ok("hello")).await, Upstream::http1(|_| Reply::ok("hello")).await];
    let service = Service::http(&mesh::name("app")).outlier(5, Duration::from_secs(1)).retry(mesh::SAFE, 2);
    let service = [&bad, &good[0], &good[1]].iter().fold(service, |s, app| s.endpoint(&app.addr().to_string(), None));
    control.publish(&service);
    let sidecar = mesh::client(&control, &["app"]).await;
    let addr = sidecar.outbound(&mesh::name("app"));
    let (started, mut requests, mut failed) = (Instant::now(), 0, 0);
    let mut client = Raw::connect(addr).await;
    while started.elapsed() < time {
        failed += usize::from(client.exchange("GET", "/", "app.shop").await.status != 200);
        requests += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let ejections = mesh::metric(&sidecar, "tulle_endpoint_ejections_total").await;
    // One at a time as it comes back: each time away is longer than the one before.
    let seconds = time.as_secs() as usize;
    let most = 5 + seconds;
    broken.store(0, Ordering::SeqCst);
    let (at, mended) = (hits.load(Ordering::SeqCst), Instant::now());
    while hits.load(Ordering::SeqCst) < at + 20 && mended.elapsed() < Duration::from_secs(40) {
        client.exchange("GET", "/", "app.shop").await;
        requests += 1;
    }
    let note = format!(
        "{failed} failed before and between {ejections} ejections; back {:.1} s after it was mended",
        mended.elapsed().as_secs_f64()
    );
    let mut outcome = Outcome { requests, wrong: Vec::new(), note };
    outcome.check(failed <= most, || format!("{failed} requests failed, {most} at most"));
    outcome.check(ejections >= 1.0, || "nothing was ejected".to_owned());
    outcome.check(hits.load(Ordering::SeqCst) >= at + 20, || "it did not come back".to_owned());
    outcome
}

/// One of five takes two seconds: it gets a small share of the requests, by their number under way.
pub(crate) async fn slow(scale: Scale) -> Outcome {
    let time = scale.pick(Duration::from_secs(5), Duration::from_secs(20));
    let control = mesh::control().await;
    let lame = Upstream::http1(|_| Reply::default().pause(Duration::from_secs(2)).write(HELLO)).await;
    let mut service = Service::http(&mesh::name("app")).endpoint(&lame.addr().to_string(), None);
    let mut quick = Vec::new();
    for _ in 0..4 {
        let app = Upstream::http1(|_| Reply::default().pause(Duration::from_millis(2)).write(HELLO)).await;
        service = service.endpoint(&app.addr().to_string(), None);
        quick.push(app);
    }
    control.publish(&service);
    let sidecar = mesh::client(&control, &["app"]).await;
    let (addr, load, started) = (sidecar.outbound(&mesh::name("app")), Load::default(), Instant::now());
    let watch = async {
        until(|| started.elapsed() >= time).await;
        load.finish();
    };
    let lanes = all((0..32).map(|_| load.http1(addr, "app.shop", Duration::from_millis(10))).collect());
    tokio::join!(watch, lanes);
    let share = lame.requests().len() as f64 * 100.0 / load.made() as f64;
    let mut outcome = load.into_outcome(format!("{share:.1} % of the requests went to the slow one"));
    outcome.check(share <= 5.0, || format!("{share:.1} % of the requests went to the slow one, 5 % at most"));
    outcome
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
