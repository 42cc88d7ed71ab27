//! Who may do what in the cluster: one authority, a certificate for each program, a kubeconfig for each client.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The authority of the cluster and the folder its files go to.
#[derive(Debug)]
pub(crate) struct Pki {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// A new authority; `ca.crt` and the keys of service account tokens, `tokens.key` and
    /// `tokens.pub`, are in `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut params = named("tulle-test", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(dir.join("ca.crt"), authority.pem())?;
        let tokens = KeyPair::generate()?;
        fs::write(dir.join("tokens.key"), tokens.serialize_pem())?;
        fs::write(dir.join("tokens.pub"), tokens.public_key_pem())?;
        Ok(Self { dir: dir.to_owned(), authority })
    }

    /// Path of a file of this folder.
    pub(crate) fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    /// The API server's certificate, `apiserver.crt` and `.key`, for the addresses it is called by.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn api_server(&self, addresses: &[&str]) -> anyhow::Result<()> {
        let names = addresses.iter().map(|&address| address.to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue("apiserver", &params)
    }

    /// A client's certificate, and `NAME.kubeconfig` by which it calls `server`; gives the path of the latter.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn client(&self, name: &str, user: &str, group: Option<&str>, server: &str) -> anyhow::Result<String> {
        let mut params = named(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, &params)?;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority": self.path("ca.crt")}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "users": [{"name": "it", "user": {
                "client-certificate": self.path(&format!("{name}.crt")),
                "client-key": self.path(&format!("{name}.key")),
            }}],
        });
        let path = self.path(&format!("{name}.kubeconfig"));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    fn issue(&self, file: &str, params: &CertificateParams) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        fs::write(self.dir.join(format!("{file}.crt")), certificate.pem())?;
        Ok(fs::write(self.dir.join(format!("{file}.key")), key.serialize_pem())?)
    }
}

fn named(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}
