//! The command line and its environment variables, as texts. clap only splits them; what they mean is decided in
//! `read`, so that every bad value is reported in one go.

use clap::Parser;

/// Tulle's sidecar proxy. Every flag can be given by the environment variable shown with it; a flag wins.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "tulle-proxy", version, about, long_about = None)]
pub(super) struct Flags {
    /// Namespace of the workload.
    #[arg(long, env = "TULLE_NAMESPACE", default_value = "default", help_heading = "Workload")]
    pub(super) namespace: String,
    /// Name of the workload (its Deployment, not the pod); required with a control plane.
    #[arg(long, env = "TULLE_WORKLOAD", help_heading = "Workload")]
    pub(super) workload: Option<String>,
    /// Service account: with the namespace it is the workload's identity.
    #[arg(long, env = "TULLE_SERVICE_ACCOUNT", default_value = "default", help_heading = "Workload")]
    pub(super) service_account: String,
    /// Region the workload runs in.
    #[arg(long, env = "TULLE_REGION", default_value = "", help_heading = "Workload")]
    pub(super) region: String,
    /// Zone the workload runs in; endpoints of the same zone are preferred.
    #[arg(long, env = "TULLE_ZONE", default_value = "", help_heading = "Workload")]
    pub(super) zone: String,
    /// Addresses of the workload; connections to them are never proxied outbound.
    #[arg(long = "pod-ip", env = "TULLE_POD_IPS", value_delimiter = ',', value_name = "IP", help_heading = "Workload")]
    pub(super) pod_ips: Vec<String>,
    /// Trust domain of the mesh's identities.
    #[arg(long, env = "TULLE_TRUST_DOMAIN", default_value = "cluster.local", help_heading = "Workload")]
    pub(super) trust_domain: String,
    /// DNS domain of services.
    #[arg(long, env = "TULLE_CLUSTER_DOMAIN", default_value = "cluster.local", help_heading = "Workload")]
    pub(super) cluster_domain: String,

    /// Control plane to take configuration and a certificate from; without one everything is passed through.
    #[arg(long, env = "TULLE_CONTROL_PLANE", value_name = "HOST:PORT", help_heading = "Control plane")]
    pub(super) control_plane: Option<String>,
    /// Certificates (PEM) that the control plane's certificate must chain to; read at each connect.
    #[arg(long, env = "TULLE_TRUST_BUNDLE", value_name = "FILE", help_heading = "Control plane")]
    pub(super) trust_bundle: Option<String>,
    /// Workload token; read at each connect.
    #[arg(long, env = "TULLE_TOKEN", value_name = "FILE", help_heading = "Control plane")]
    pub(super) token: Option<String>,
    /// Identity the control plane must prove [default: spiffe://TRUST-DOMAIN/ns/tulle-system/sa/tulle-control-plane].
    #[arg(long, env = "TULLE_CONTROL_PLANE_ID", value_name = "SPIFFE-ID", help_heading = "Control plane")]
    pub(super) control_plane_id: Option<String>,
    /// Directory for the last good configuration; without one a restart needs the control plane.
    #[arg(long, env = "TULLE_STATE_DIR", value_name = "DIR", help_heading = "Control plane")]
    pub(super) state_dir: Option<String>,
    /// Services to ask for at start, so that their first connection does not wait.
    #[arg(
        long,
        env = "TULLE_UPSTREAMS",
        value_delimiter = ',',
        value_name = "SERVICE:PORT",
        help_heading = "Control plane"
    )]
    pub(super) prefetch: Vec<String>,
    /// Longest wait of a connection to a destination that is not known yet, while the control plane is away; 10 s otherwise.
    #[arg(long, env = "TULLE_DEMAND_WAIT", default_value = "2s", help_heading = "Control plane")]
    pub(super) demand_wait: String,
    /// How long the answer `no such service` holds.
    #[arg(long, env = "TULLE_ABSENT_TTL", default_value = "10s", help_heading = "Control plane")]
    pub(super) absent_ttl: String,
    /// Lifetime to ask for in certificates [default: the control plane's].
    #[arg(long, env = "TULLE_LEAF_TTL", help_heading = "Control plane")]
    pub(super) leaf_ttl: Option<String>,

    /// Take redirected connections: outbound on port 15001, inbound on port 15006.
    #[arg(long, env = "TULLE_CAPTURE", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Traffic")]
    pub(super) capture: Option<String>,
    /// Listener for captured outbound connections [default: 0.0.0.0:15001 and [::]:15001].
    #[arg(
        long,
        env = "TULLE_CAPTURE_OUTBOUND",
        value_delimiter = ',',
        value_name = "ADDRESS",
        help_heading = "Traffic"
    )]
    pub(super) capture_outbound: Vec<String>,
    /// Listener for captured inbound connections [default: 0.0.0.0:15006 and [::]:15006].
    #[arg(
        long,
        env = "TULLE_CAPTURE_INBOUND",
        value_delimiter = ',',
        value_name = "ADDRESS",
        help_heading = "Traffic"
    )]
    pub(super) capture_inbound: Vec<String>,
    /// Receive for the application without capture.
    #[arg(long, env = "TULLE_INBOUND", value_delimiter = ',', value_name = "LISTEN=APP", help_heading = "Traffic")]
    pub(super) inbound: Vec<String>,
    /// Send to one service without capture.
    #[arg(
        long,
        env = "TULLE_OUTBOUND",
        value_delimiter = ',',
        value_name = "LISTEN=SERVICE:PORT",
        help_heading = "Traffic"
    )]
    pub(super) outbound: Vec<String>,
    /// Send HTTP without capture; the request's host chooses the service.
    #[arg(long, env = "TULLE_OUTBOUND_HTTP", value_delimiter = ',', value_name = "LISTEN", help_heading = "Traffic")]
    pub(super) outbound_http: Vec<String>,
    /// Answer DNS questions of the workload: names of the mesh at once, all else by its own nameservers.
    #[arg(long, env = "TULLE_DNS_CAPTURE", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "DNS")]
    pub(super) dns_capture: Option<String>,
    /// Where questions arrive, over UDP and TCP [default: 127.0.0.1:15053 and [::1]:15053].
    #[arg(long, env = "TULLE_DNS_ADDRESS", value_delimiter = ',', value_name = "ADDRESS", help_heading = "DNS")]
    pub(super) dns_address: Vec<String>,
    /// File with the workload's nameservers, search path and options.
    #[arg(
        long,
        env = "TULLE_RESOLV_CONF",
        default_value = "/etc/resolv.conf",
        value_name = "FILE",
        help_heading = "DNS"
    )]
    pub(super) resolv_conf: String,
    /// Nameservers to ask instead of the file's.
    #[arg(long, env = "TULLE_NAMESERVERS", value_delimiter = ',', value_name = "IP[:PORT]", help_heading = "DNS")]
    pub(super) nameserver: Vec<String>,

    /// Destinations the mesh does not know: pass-through or refuse.
    #[arg(long, env = "TULLE_UNKNOWN", default_value = "pass-through", help_heading = "Traffic")]
    pub(super) unknown: String,
    /// Ports that are never sniffed, because the server speaks first.
    #[arg(
        long,
        env = "TULLE_OPAQUE_PORTS",
        value_delimiter = ',',
        default_value = "25,587,3306,4444,5432,6379,9300,11211",
        help_heading = "Traffic"
    )]
    pub(super) opaque_ports: Vec<String>,
    /// How long to wait for a client's first bytes where no protocol is declared, before the application is connected to.
    #[arg(long, env = "TULLE_DETECT_TIMEOUT", default_value = "1s", help_heading = "Traffic")]
    pub(super) detect_timeout: String,
    /// Mark (SO_MARK) of the proxy's own connections, for redirect rules to leave alone.
    #[arg(long, env = "TULLE_PROXY_MARK", value_name = "NUMBER", help_heading = "Traffic")]
    pub(super) mark: Option<String>,

    /// Worker threads [default: the CPU quota rounded up, at most 2].
    #[arg(long, env = "TULLE_WORKERS", value_name = "NUMBER", help_heading = "Process")]
    pub(super) workers: Option<String>,
    /// Connections one worker serves at a time.
    #[arg(
        long,
        env = "TULLE_MAX_CONNECTIONS",
        default_value = "50000",
        value_name = "NUMBER",
        help_heading = "Process"
    )]
    pub(super) max_connections: String,
    /// Largest head of a request or response, in bytes; at most 65535.
    #[arg(
        long,
        env = "TULLE_MAX_HEADER_BYTES",
        default_value = "65535",
        value_name = "BYTES",
        help_heading = "Process"
    )]
    pub(super) max_header_bytes: String,
    /// Most header fields of a request or response; at most 128.
    #[arg(long, env = "TULLE_MAX_HEADERS", default_value = "100", value_name = "NUMBER", help_heading = "Process")]
    pub(super) max_headers: String,
    /// Longest time for a client to send the head of a request.
    #[arg(long, env = "TULLE_HEADER_TIMEOUT", default_value = "10s", help_heading = "Process")]
    pub(super) header_timeout: String,
    /// A client's connection that carries nothing for this long is closed.
    #[arg(long, env = "TULLE_IDLE_TIMEOUT", default_value = "1h", help_heading = "Process")]
    pub(super) idle_timeout: String,
    /// A reply of which the client takes nothing for this long is given up.
    #[arg(long, env = "TULLE_STALL_TIMEOUT", default_value = "5m", help_heading = "Process")]
    pub(super) stall_timeout: String,
    /// A client that has ended its own direction gets no response after so long without a byte of it: it may have left.
    #[arg(long, env = "TULLE_HALF_CLOSE_TIMEOUT", default_value = "30s", help_heading = "Process")]
    pub(super) half_close_timeout: String,
    /// Age, give or take a tenth, at which a connection to the workload ends: HTTP between two requests, opaque bytes at once.
    #[arg(long, env = "TULLE_MAX_CONNECTION_AGE", value_name = "DURATION", help_heading = "Process")]
    pub(super) max_connection_age: Option<String>,
    /// Admin listener; loopback only.
    #[arg(
        long,
        env = "TULLE_ADMIN_ADDRESS",
        default_value = "127.0.0.1:15000",
        value_name = "ADDRESS",
        help_heading = "Process"
    )]
    pub(super) admin: String,
    /// Listener for readiness and metrics.
    #[arg(
        long,
        env = "TULLE_STATUS_ADDRESS",
        default_value = "0.0.0.0:15020",
        value_name = "ADDRESS",
        help_heading = "Process"
    )]
    pub(super) status: String,
    /// Probes of the application to perform for the kubelet, as JSON: status path -> handler of Kubernetes with timeoutSeconds.
    #[arg(long, env = "TULLE_APP_PROBES", value_name = "JSON", help_heading = "Process")]
    pub(super) app_probes: Option<String>,
    /// The application's own metrics to append to /metrics, as JSON: port and path.
    #[arg(long, env = "TULLE_APP_METRICS", value_name = "JSON", help_heading = "Process")]
    pub(super) app_metrics: Option<String>,
    /// Start nothing; wait until the proxy of this pod is ready, for so long at most.
    #[arg(long, value_name = "DURATION", help_heading = "Process")]
    pub(super) wait_ready: Option<String>,
    /// How long connections are still accepted after SIGTERM.
    #[arg(long, env = "TULLE_DRAIN_MIN", default_value = "5s", help_heading = "Process")]
    pub(super) drain_min: String,
    /// Longest time from SIGTERM to the end of the process.
    #[arg(long, env = "TULLE_DRAIN_DEADLINE", default_value = "30s", help_heading = "Process")]
    pub(super) drain_deadline: String,
    /// Access log on standard output: off, text or json.
    #[arg(long, env = "TULLE_ACCESS_LOG", default_value = "off", help_heading = "Process")]
    pub(super) access_log: String,
    /// Log level or filter: error, warn, info, debug, trace, or `tulle_proxy::xds=debug,info`.
    #[arg(long, env = "TULLE_LOG_LEVEL", default_value = "info", help_heading = "Process")]
    pub(super) log_level: String,
    /// Log format: text or json.
    #[arg(long, env = "TULLE_LOG_FORMAT", default_value = "text", help_heading = "Process")]
    pub(super) log_format: String,
}
