//! Certificates: signed for who the caller is, and for nobody else (CP-01, CP-02, CP-05).

use std::time::{Duration, SystemTime};

use tonic::Code;
use tulle_identity::csr::PendingKey;
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::token::TokenIssuer;
use tulle_proto::auth::IstioCertificateRequest;
use tulle_proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;

use super::world::{World, domain, with_token};

fn web() -> SpiffeId {
    SpiffeId::workload(&domain(), "shop", "web").unwrap()
}

fn request(key: &PendingKey, names: &SpiffeId, seconds: i64) -> IstioCertificateRequest {
    IstioCertificateRequest { csr: key.csr_pem(names).unwrap(), validity_duration: seconds, metadata: None }
}

#[tokio::test]
async fn a_certificate_names_the_caller_whatever_the_request_names() {
    let world = World::start().await;
    let token = world.token("shop", "web");
    let mut client = IstioCertificateServiceClient::new(world.connect().await);
    let victim = SpiffeId::workload(&domain(), "bank", "vault").unwrap();
    for asked in [web(), victim] {
        let key = PendingKey::generate().unwrap();
        let reply = client.create_certificate(with_token(request(&key, &asked, 0), Some(&token))).await.unwrap();
        let (svid, bundle) = key.into_svid(&reply.into_inner().cert_chain, SystemTime::now()).unwrap();
        assert_eq!(svid.id(), &web());
        assert_eq!(bundle.hash(), world.bundle().hash());
    }
}

#[tokio::test]
async fn lifetimes_are_clamped() {
    let world = World::start().await;
    let token = world.token("shop", "web");
    let mut client = IstioCertificateServiceClient::new(world.connect().await);
    let day = 86_400;
    for (asked, granted) in [(0, day), (600, 600), (10 * 365 * day, day)] {
        let key = PendingKey::generate().unwrap();
        let reply = client.create_certificate(with_token(request(&key, &web(), asked), Some(&token))).await.unwrap();
        let (svid, _) = key.into_svid(&reply.into_inner().cert_chain, SystemTime::now()).unwrap();
        let left = svid.not_after().duration_since(SystemTime::now()).unwrap();
        let granted = Duration::from_secs(u64::try_from(granted).unwrap());
        assert!(left <= granted + Duration::from_secs(1), "{asked}: {left:?}");
        assert!(left > granted - Duration::from_secs(90), "{asked}: {left:?}");
    }
}

#[tokio::test]
async fn callers_without_a_good_token_get_nothing_on_either_listener() {
    let world = World::start().await;
    let other = tempfile::tempdir().unwrap();
    let foreign = TokenIssuer::open(&other.path().join("state")).unwrap();
    let foreign = foreign.issue(&web(), Duration::from_secs(600), SystemTime::now()).unwrap();
    let issuer = TokenIssuer::open(&world.state()).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    let expired = issuer.issue(&web(), Duration::from_secs(600), long_ago).unwrap();
    let stranger = SpiffeId::parse("spiffe://elsewhere.test/ns/shop/sa/web").unwrap();
    let stranger = issuer.issue(&stranger, Duration::from_secs(600), SystemTime::now()).unwrap();
    let tokens = [None, Some("garbage"), Some(""), Some(&*foreign), Some(&*expired), Some(&*stranger)];
    for channel in [world.connect().await, world.connect_plain().await] {
        let mut client = IstioCertificateServiceClient::new(channel);
        for token in tokens {
            let key = PendingKey::generate().unwrap();
            let refused = client.create_certificate(with_token(request(&key, &web(), 0), token)).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}: {refused}");
        }
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let world = World::start().await;
    let token = world.token("shop", "web");
    let mut client = IstioCertificateServiceClient::new(world.connect().await);
    let key = PendingKey::generate().unwrap();
    let good = key.csr_pem(&web()).unwrap();
    let broken = good.replacen("MI", "MJ", 1);
    let cases = [(String::new(), 0), ("not PEM".to_owned(), 0), (broken, 0), ("A".repeat(1024 * 1024), 0), (good, -1)];
    for (csr, seconds) in cases {
        let start: String = csr.chars().take(40).collect();
        let message = IstioCertificateRequest { csr, validity_duration: seconds, metadata: None };
        let refused = client.create_certificate(with_token(message, Some(&token))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{start}: {refused}");
    }
}
