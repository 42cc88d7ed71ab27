//! Questions to answers: names from a scripted discovery, nameservers on loopback sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::counts::Outcome;
use super::message::{self, Parsed, Question};
use super::resolve::{Resolved, Resolver};
use super::serve::Sockets;
use super::{Deps, Settings};
use crate::config::bootstrap::Bootstrap;
use crate::config::demand::{Demand, DemandKey, Demands};
use crate::config::names::{KnownName, Names};
use crate::config::status::Status;

const REVIEWS: &str = "reviews.shop.svc.cluster.local";

/// The service, as a client asks that has completed a short name with its first search domain.
const COMPLETED: &str = "reviews.shop.svc.shop.svc.cluster.local.";

/// A resolver of a pod of the namespace `shop`, and its sources.
struct Pod {
    resolver: Arc<Resolver>,
    names: watch::Sender<Arc<Names>>,
    demands: Demands,
    status: Status,
}

impl Pod {
    /// A DNS server on loopback with one name, and where it listens.
    async fn served(addresses: &[&str]) -> (SocketAddr, Self, JoinSet<()>) {
        let pod = Self::new(&[]);
        pod.knows(REVIEWS, Some(addresses));
        let sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let address = sockets.addresses().next().unwrap();
        let mut running = JoinSet::new();
        running.spawn(sockets.run(Arc::clone(&pod.resolver)));
        (address, pod, running)
    }

    fn new(nameservers: &[SocketAddr]) -> Self {
        let bootstrap = Arc::new(Bootstrap::parse(["tulle-proxy"]).unwrap());
        let (demand, demands) = Demand::channel();
        let (names, status) = (watch::Sender::default(), Status::default());
        status.update(|facts| facts.connected = true);
        let settings = Settings {
            listen: Vec::new(),
            nameservers: nameservers.to_vec(),
            search: ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(str::to_owned).to_vec(),
            ndots: 5,
        };
        let deps = Deps { bootstrap, names: names.subscribe(), demand, status: status.clone() };
        Self { resolver: Arc::new(Resolver::new(&settings, deps)), names, demands, status }
    }

    fn knows(&self, name: &str, addresses: Option<&[&str]>) {
        let known = addresses.map_or(KnownName::Absent, |all| {
            KnownName::Addresses(all.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect())
        });
        self.names.send_modify(|names| {
            let mut changed = Names::clone(names);
            changed.known.insert(name.into(), known);
            *names = Arc::new(changed);
        });
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Resolved {
        self.resolver.resolve(&question(name, kind)).await
    }
}

fn bytes(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn question(name: &str, kind: RecordType) -> Question {
    match message::parse(&bytes(name, kind)) {
        Parsed::Question(question) => *question,
        other @ (Parsed::Refused(_) | Parsed::Nothing) => panic!("{other:?}"),
    }
}

/// Records in short, sorted.
fn short(resolved: &Resolved) -> String {
    let mut all: Vec<String> = resolved.answer.answers.iter().map(|record| record.data.to_string()).collect();
    all.sort();
    format!("{:?} {} {}", resolved.outcome, resolved.answer.code, all.join(" ")).trim_end().to_owned()
}

/// A nameserver that answers from `script`, which gets the number of the question; none: silence.
async fn nameserver(
    script: impl Fn(usize, &mut Message) -> bool + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let (script, count) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    let reply = {
        let count = Arc::clone(&count);
        move |bytes: &[u8], over_tcp: bool| {
            let asked = Message::from_vec(bytes).unwrap();
            let mut reply = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
            reply.queries = asked.queries;
            reply.metadata.recursion_available = true;
            reply.metadata.authoritative = over_tcp;
            let number = count.fetch_add(1, Ordering::Relaxed);
            script(number, &mut reply).then(|| reply.to_vec().unwrap())
        }
    };
    let mut tasks = JoinSet::new();
    let by_udp = reply.clone();
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            if let Some(bytes) = by_udp(&buffer[..length], false) {
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; length.into()];
            stream.read_exact(&mut bytes).await.unwrap();
            if let Some(bytes) = reply(&bytes, true) {
                stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    (address, count, tasks)
}

fn address(message: &mut Message, last: u8) {
    let owner = message.queries[0].name().clone();
    message.add_answer(Record::from_rdata(owner, 60, RData::A(A([192, 0, 2, last].into()))));
}

/// A port where nothing listens.
async fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn the_mesh_answers_for_its_names_however_they_are_written() {
    let pod = Pod::new(&[]);
    pod.knows(REVIEWS, Some(&["10.96.0.1", "fd00::1"]));
    pod.knows("v4.shop.svc.cluster.local", Some(&["10.96.0.2"]));
    pod.knows("db.data.svc.cluster.local", Some(&["10.1.0.1", "10.1.0.2"]));
    pod.knows("data.shop.svc.cluster.local", None);
    for (name, kind, expected) in [
        ("reviews.shop.svc.cluster.local.", RecordType::A, "Mesh No Error 10.96.0.1"),
        ("Reviews.Shop.SVC.cluster.local.", RecordType::AAAA, "Mesh No Error fd00::1"),
        (COMPLETED, RecordType::A, "Mesh No Error 10.96.0.1 reviews.shop.svc.cluster.local."),
        (COMPLETED, RecordType::AAAA, "Mesh No Error fd00::1 reviews.shop.svc.cluster.local."),
        ("v4.shop.svc.cluster.local.", RecordType::AAAA, "Mesh No Error"),
        ("reviews.shop.svc.cluster.local.", RecordType::HTTPS, "Mesh No Error"),
        ("db.data.svc.cluster.local.", RecordType::A, "Mesh No Error 10.1.0.1 10.1.0.2"),
        (
            "db.data.shop.svc.cluster.local.",
            RecordType::A,
            "Mesh No Error 10.1.0.1 10.1.0.2 db.data.svc.cluster.local.",
        ),
    ] {
        let resolved = pod.ask(name, kind).await;
        assert_eq!(short(&resolved), expected, "{name} {kind}");
        assert!(resolved.answer.authoritative);
        assert_eq!(resolved.answer.authorities.len(), usize::from(resolved.answer.answers.is_empty()), "{name} {kind}");
    }
}

#[tokio::test]
async fn a_name_is_asked_for_and_waited_for() {
    let mut pod = Pod::new(&[]);
    let resolver = Arc::clone(&pod.resolver);
    let asked = tokio::join!(async move { resolver.resolve(&question(COMPLETED, RecordType::A)).await }, async {
        assert_eq!(pod.demands.queue.recv().await, Some(DemandKey::Host(REVIEWS.into())));
        pod.knows(REVIEWS, Some(&["10.96.0.1"]));
    });
    assert_eq!(short(&asked.0), format!("Mesh No Error 10.96.0.1 {REVIEWS}."));
    // A host of a headless service is not another namespace's service.
    pod.knows("shop.other.svc.cluster.local", Some(&["10.96.0.9"]));
    pod.knows("reviews.shop.svc.cluster.local", Some(&["10.96.0.1"]));
    let host = pod.ask("reviews.shop.other.svc.cluster.local.", RecordType::A).await;
    assert_eq!(host.outcome, Outcome::Failed, "no nameserver here");
}

#[tokio::test]
async fn while_the_control_plane_is_away_what_is_known_serves_and_the_rest_goes_on_at_once() {
    let (server, count, _tasks) = nameserver(|_, reply| {
        address(reply, 7);
        true
    })
    .await;
    let pod = Pod::new(&[server]);
    pod.knows(REVIEWS, Some(&["10.96.0.1"]));
    pod.status.update(|facts| facts.connected = false);
    assert_eq!(short(&pod.ask(COMPLETED, RecordType::A).await), format!("Mesh No Error 10.96.0.1 {REVIEWS}."));
    let other = pod.ask("other.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!((short(&other).as_str(), count.load(Ordering::Relaxed)), ("Forwarded No Error 192.0.2.7", 1));
}

/// `example.com.` on the wire is absolute, also where a Service `example` in a namespace `com` exists.
#[tokio::test]
async fn hostile_18_absolute_names_go_to_the_nameservers() {
    let (server, count, _tasks) = nameserver(|_, reply| {
        address(reply, 7);
        true
    })
    .await;
    let pod = Pod::new(&[server]);
    pod.knows("example.com.svc.cluster.local", Some(&["10.96.0.66"]));
    pod.knows("com.shop.svc.cluster.local", Some(&["10.96.0.67"]));
    for (asked, name) in ["example.com.", "com.", "EXAMPLE.com.", "example.com.svc."].into_iter().enumerate() {
        assert_eq!(short(&pod.ask(name, RecordType::A).await).split(' ').next_back(), Some("192.0.2.7"), "{name}");
        assert!(count.load(Ordering::Relaxed) <= asked + 1);
    }
    // Kubernetes' own search path leads there, so the mesh does too.
    let searched = pod.ask("example.com.svc.cluster.local.", RecordType::A).await;
    assert_eq!(short(&searched), "Mesh No Error 10.96.0.66");
}

#[tokio::test]
async fn answers_are_cached_and_equal_questions_are_one() {
    let (server, count, _tasks) = nameserver(|_, reply| {
        if reply.queries[0].name().to_ascii().starts_with("none") {
            let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 60);
            reply.add_authority(Record::from_rdata(Name::from_ascii("example.").unwrap(), 60, RData::SOA(soa)));
            reply.metadata.response_code = ResponseCode::NXDomain;
        } else {
            address(reply, 1);
        }
        true
    })
    .await;
    let pod = Pod::new(&[server]);
    let ten = join_all((0..10).map(|_| pod.ask("www.site.example.", RecordType::A))).await;
    for resolved in &ten {
        assert_eq!(short(resolved), "Forwarded No Error 192.0.2.1");
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    assert_eq!(short(&pod.ask("WWW.site.example.", RecordType::A).await), "Cached No Error 192.0.2.1");
    assert_eq!(short(&pod.ask("none.site.example.", RecordType::A).await), "Forwarded Non-Existent Domain");
    let again = pod.ask("none.site.example.", RecordType::A).await;
    assert_eq!((short(&again).as_str(), again.answer.authorities.len()), ("Cached Non-Existent Domain", 1));
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_udp_truncates_comes_over_tcp() {
    let (server, _, _tasks) = nameserver(|_, reply| {
        if reply.metadata.authoritative {
            (1..=200).for_each(|last| address(reply, last));
        } else {
            reply.metadata.truncation = true;
        }
        true
    })
    .await;
    let resolved = Pod::new(&[server]).ask("many.site.example.", RecordType::A).await;
    assert_eq!((resolved.outcome, resolved.answer.answers.len()), (Outcome::Forwarded, 200));
}

#[tokio::test]
async fn the_next_nameserver_is_asked_when_one_fails_or_is_gone() {
    let (broken, ..) = nameserver(|_, reply| {
        reply.metadata.response_code = ResponseCode::ServFail;
        true
    })
    .await;
    let (refusing, _, _tasks) = nameserver(|_, reply| {
        reply.metadata.response_code = ResponseCode::Refused;
        true
    })
    .await;
    let (good, _, _good_tasks) = nameserver(|_, reply| {
        address(reply, 9);
        true
    })
    .await;
    let pod = Pod::new(&[broken, refusing, good]);
    assert_eq!(short(&pod.ask("a.site.example.", RecordType::A).await), "Forwarded No Error 192.0.2.9");
    let pod = Pod::new(&[nobody().await, good]);
    assert_eq!(short(&pod.ask("a.site.example.", RecordType::A).await), "Forwarded No Error 192.0.2.9");
}

#[tokio::test]
async fn without_any_nameserver_an_answer_of_before_serves_and_else_the_reason_is_told() {
    let (server, _, tasks) = nameserver(|_, reply| {
        let owner = reply.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(owner, 1, RData::A(A([192, 0, 2, 5].into()))));
        true
    })
    .await;
    let pod = Pod::new(&[server]);
    assert_eq!(short(&pod.ask("a.site.example.", RecordType::A).await), "Forwarded No Error 192.0.2.5");
    drop(tasks);
    // Its second passes; how long the machine takes beyond that changes nothing.
    let stale = async {
        loop {
            let resolved = pod.ask("a.site.example.", RecordType::A).await;
            if resolved.outcome != Outcome::Cached {
                break resolved;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let stale = tokio::time::timeout(Duration::from_secs(60), stale).await.unwrap();
    assert_eq!(short(&stale), "Stale No Error 192.0.2.5");
    assert_eq!(stale.answer.answers[0].ttl, 30);
    assert_eq!(stale.answer.note.unwrap().0, 3);
    for _ in 0..3 {
        let failed = pod.ask("b.site.example.", RecordType::A).await;
        assert_eq!(short(&failed), "Failed Server Failure");
        let (code, reason) = failed.answer.note.unwrap();
        assert!(code == 22 && reason.contains(&server.to_string()), "{reason}");
    }
}

/// One question on a stream.
async fn over(stream: &mut TcpStream, question: &[u8]) -> Message {
    stream.write_u16(question.len().try_into().unwrap()).await.unwrap();
    stream.write_all(question).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

#[tokio::test]
async fn hostile_bytes_are_refused_or_dropped_and_the_next_client_is_served() {
    let (address, pod, _running) = Pod::served(&["10.96.0.1"]).await;
    let good = bytes(&format!("{REVIEWS}."), RecordType::A);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    let mut answer_to_itself = good.clone();
    answer_to_itself[2] |= 0x80;
    let mut two_questions = good.clone();
    two_questions[5] = 2;
    // Names that point at themselves, and at what comes after.
    let mut looping = good[..12].to_vec();
    looping.extend([0xc0, 12, 0, 1, 0, 1]);
    let dropped: [&[u8]; 4] = [&[], &[0; 5], &answer_to_itself, &[1; 5000]];
    for hostile in dropped {
        client.send(hostile).await.unwrap();
    }
    for refused in [&two_questions, &looping] {
        client.send(refused).await.unwrap();
        let mut reply = [0; 512];
        let length = client.recv(&mut reply).await.unwrap();
        let reply = Message::from_vec(&reply[..length]).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (1, ResponseCode::FormErr));
    }
    client.send(&good).await.unwrap();
    let mut reply = [0; 512];
    let length = client.recv(&mut reply).await.unwrap();
    assert_eq!(Message::from_vec(&reply[..length]).unwrap().answers.len(), 1, "nothing before it was answered");

    for hostile in [&[0, 0][..], &[0xff, 0xff, 1], &[0, 3, 1, 2, 3]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(hostile).await.unwrap();
        let mut rest = Vec::new();
        // Closed, by whatever kind of end.
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, [0; 0], "{hostile:?}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        assert_eq!(over(&mut stream, &good).await.answers.len(), 1);
    }
    assert_eq!(over(&mut stream, &two_questions).await.metadata.response_code, ResponseCode::FormErr);
    assert_eq!((pod.resolver.counts().of(Outcome::Mesh), pod.resolver.counts().of(Outcome::Malformed)), (4, 10));
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_is_asked_for_again_over_a_stream() {
    let many: Vec<String> = (1..=200).map(|last| format!("10.1.0.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (address, _pod, _running) = Pod::served(&many).await;
    let question = bytes(COMPLETED, RecordType::A);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&question, address).await.unwrap();
    let mut reply = [0; 4096];
    let length = client.recv(&mut reply).await.unwrap();
    let reply = Message::from_vec(&reply[..length]).unwrap();
    assert!(length <= 512 && reply.metadata.truncation && reply.answers.is_empty());
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(over(&mut stream, &question).await.answers.len(), 201, "an alias and all addresses");
}
