//! The signing service: `istio.v1.auth.IstioCertificateService`.
//!
//! Signs for who the caller is, whatever the request asks for (CP-01); wants a token on every listener (CP-02); takes
//! nothing from the request but the key and a lifetime, which it may shorten (CP-05).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Code, Request, Response, Status};
use tulle_identity::csr;
use tulle_identity::spiffe::SpiffeId;
use tulle_proto::auth::istio_certificate_service_server::IstioCertificateService;
use tulle_proto::auth::{IstioCertificateRequest, IstioCertificateResponse};

use super::Authority;
use crate::caller::{Caller, Callers, Head};
use crate::metrics::{Metrics, ResultLabel};
use crate::quota::InUse;

/// The signing service of one listener.
#[derive(Clone)]
pub(crate) struct Ca {
    authority: Arc<Authority>,
    callers: Callers,
    metrics: Metrics,
    quotas: InUse,
    /// Lifetime of a leaf that asks for none, and the longest it may have.
    ttl: Duration,
}

impl Ca {
    pub(crate) fn new(
        authority: Arc<Authority>,
        callers: Callers,
        (metrics, quotas): (Metrics, InUse),
        ttl: Duration,
    ) -> Self {
        Self { authority, callers, metrics, quotas, ttl }
    }

    fn signed(&self, caller: &Caller, request: &IstioCertificateRequest) -> Result<Vec<String>, Status> {
        self.quotas.signature(caller.who())?;
        let id = &caller.id;
        self.sign(id, request).inspect(|_| tracing::debug!(%id, "certificate issued"))
    }

    fn sign(&self, id: &SpiffeId, request: &IstioCertificateRequest) -> Result<Vec<String>, Status> {
        let ttl = lifetime(request.validity_duration, self.ttl)?;
        let csr = csr::parse(&request.csr)
            .map_err(|error| Status::invalid_argument(format!("the signing request is not valid: {error}")))?;
        self.authority.sign(&csr, id, &[], ttl, SystemTime::now()).map_err(|error| {
            tracing::error!(%id, %error, "signing failed");
            Status::unavailable("the certificate authority cannot sign now")
        })
    }
}

/// The lifetime to issue: what was asked for, but no longer than `longest`; 0 asks for the default, which is that.
fn lifetime(asked_seconds: i64, longest: Duration) -> Result<Duration, Status> {
    match u64::try_from(asked_seconds) {
        Ok(0) => Ok(longest),
        Ok(seconds) => Ok(Duration::from_secs(seconds).min(longest)),
        Err(_) => Err(Status::invalid_argument("validity_duration is negative")),
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Ca {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let signed = match self.callers.authenticated(Head::of(&request)).await {
            Ok(caller) => self.signed(&caller, request.get_ref()),
            Err(status) => Err(status),
        };
        let result = match signed.as_ref().map_err(Status::code) {
            Ok(_) => "ok",
            Err(Code::Unauthenticated) => "unauthenticated",
            Err(Code::InvalidArgument) => "invalid",
            Err(Code::ResourceExhausted) => "limited",
            Err(_) => "failed",
        };
        self.metrics.csrs.get_or_create(&ResultLabel { result }).inc();
        signed.map(|cert_chain| Response::new(IstioCertificateResponse { cert_chain }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_clamped_and_never_negative() {
        let day = Duration::from_secs(86_400);
        let asked = |seconds| lifetime(seconds, day).map_err(|status| status.code());
        assert_eq!(asked(0), Ok(day));
        assert_eq!(asked(600), Ok(Duration::from_secs(600)));
        assert_eq!(asked(315_360_000), Ok(day));
        assert_eq!(asked(i64::MAX), Ok(day));
        assert_eq!(asked(-1), Err(Code::InvalidArgument));
    }
}
