//! nginx in a pod, as an application that somebody else wrote.

use std::fs;

use tempfile::TempDir;

use super::network::Pod;
use super::running::Running;

/// A running nginx. Stops when dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Running,
    dir: TempDir,
}

impl Nginx {
    /// Serves both families on `port`: `body` and a line feed for every path, with the header `server-port` and the
    /// request's `host`, `x-forwarded-client-cert` and `connection` headers in `seen-host`, `seen-cert` and
    /// `seen-connection`.
    ///
    /// # Errors
    /// When it does not start or the port is taken.
    pub fn start(pod: &Pod, port: u16, body: &str) -> anyhow::Result<Self> {
        Self::run(pod, port, ("", ""), (TempDir::new()?, body))
    }

    /// As [`Nginx::start`] over the application's own TLS, with a certificate and key in PEM.
    ///
    /// # Errors
    /// As [`Nginx::start`], and when nginx does not take the certificate.
    pub fn start_tls(pod: &Pod, port: u16, cert_and_key: (&str, &str), body: &str) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&cert, cert_and_key.0)?;
        fs::write(&key, cert_and_key.1)?;
        let tls = format!("ssl_certificate {}; ssl_certificate_key {};", cert.display(), key.display());
        Self::run(pod, port, (" ssl", &tls), (dir, body))
    }

    fn run(pod: &Pod, port: u16, (flags, tls): (&str, &str), (dir, body): (TempDir, &str)) -> anyhow::Result<Self> {
        let root = dir.path().display().to_string();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr notice;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
             access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
             fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
             server {{ listen {port}{flags}; listen [::]:{port}{flags}; {tls}\n\
             add_header server-port {port}; add_header seen-host $http_host;\n\
             add_header seen-cert $http_x_forwarded_client_cert; add_header seen-connection $http_connection;\n\
             location / {{ return 200 \"{body}\\n\"; }} }}\n\
             }}\n"
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config)?;
        let process = pod.start("nginx", &["-p", &root, "-e", "stderr", "-c", &file.display().to_string()])?;
        pod.wait_listening(port)?;
        Ok(Self { process, dir })
    }

    /// What nginx logged so far.
    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// Its folder.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}
