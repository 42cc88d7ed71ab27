//! Resources as YAML for people: from the `Debug` text of the messages, with embedded messages decoded, maps sorted,
//! and everything at its default left out.

use prost::Message;
use tulle_proto::Any;
use tulle_proto::envoy::config::cluster::v3::Cluster;
use tulle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use tulle_proto::envoy::config::listener::v3::Listener;
use tulle_proto::envoy::config::route::v3::RouteConfiguration;
use tulle_proto::envoy::extensions::filters::http::router::v3::Router;
use tulle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use tulle_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use tulle_proto::envoy::extensions::transport_sockets::tls::v3::{DownstreamTlsContext, UpstreamTlsContext};
use tulle_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use tulle_proto::own::Name;

/// Enumerations at their first value, which `Debug` writes by name.
const DEFAULTS: &[(&str, &str)] = &[
    ("cluster_not_found_response_code", "ServiceUnavailable"),
    ("dns_lookup_family", "Auto"),
    ("drain_type", "Default"),
    ("forward_client_cert_details", "Sanitize"),
    ("headers_with_underscores_action", "Allow"),
    ("internal_redirect_action", "PassThroughInternalRedirect"),
    ("ocsp_staple_policy", "LenientStapling"),
    ("path_with_escaped_slashes_action", "ImplementationSpecificDefault"),
    ("priority", "Default"),
    ("protocol", "Tcp"),
    ("protocol_selection", "UseConfiguredProtocol"),
    ("proxy_protocol_tlv_merge_policy", "AddIfAbsent"),
    ("server_header_transformation", "Overwrite"),
    ("source_type", "Any"),
    ("traffic_direction", "Unspecified"),
    ("trust_chain_verification", "VerifyTrustChain"),
    ("upstream_connect_mode", "Immediate"),
];

/// A parsed `Debug` text.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Scalar(String),
    /// Type name and fields, or a map with its keys.
    Map(String, Vec<(String, Self)>),
    List(Vec<Self>),
    Nothing,
}

/// The body of a resource.
pub(super) fn body(any: &Any) -> String {
    let mut out = String::new();
    write(&decode(&any.type_url, &any.value), 0, &mut out);
    out
}

fn decode(url: &str, bytes: &[u8]) -> Value {
    fn of<M: Message + Default + std::fmt::Debug>(bytes: &[u8]) -> Value {
        let text = format!("{:?}", M::decode(bytes).expect("a message of its type"));
        let mut parser = Parser { rest: &text };
        let value = parser.value();
        assert_eq!(parser.rest, "", "all of the text is read");
        value
    }
    match url.rsplit('.').next().unwrap_or_default() {
        "Listener" => of::<Listener>(bytes),
        "RouteConfiguration" => of::<RouteConfiguration>(bytes),
        "Cluster" => of::<Cluster>(bytes),
        "ClusterLoadAssignment" => of::<ClusterLoadAssignment>(bytes),
        "Name" => of::<Name>(bytes),
        "HttpConnectionManager" => of::<HttpConnectionManager>(bytes),
        "TcpProxy" => of::<TcpProxy>(bytes),
        "Router" => of::<Router>(bytes),
        "HttpProtocolOptions" => of::<HttpProtocolOptions>(bytes),
        "UpstreamTlsContext" => of::<UpstreamTlsContext>(bytes),
        "DownstreamTlsContext" => of::<DownstreamTlsContext>(bytes),
        _ => panic!("teach the renderer {url}"),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        let trimmed = self.rest.trim_start();
        if let Some(rest) = trimmed.strip_prefix(token) {
            self.rest = rest;
            return true;
        }
        false
    }

    fn value(&mut self) -> Value {
        if self.eat("[") {
            return Value::List(self.until("]", Self::value));
        }
        if self.eat("{") {
            let mut entries = self.until("}", |p| {
                let key = p.word();
                assert!(p.eat(":"));
                (key, p.value())
            });
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            return Value::Map(String::new(), entries);
        }
        let word = self.word();
        if self.eat("{") {
            let fields = self.until("}", |p| {
                let name = p.word();
                assert!(p.eat(":"));
                (name, p.value())
            });
            return simplify(word, fields);
        }
        if self.eat("(") {
            let inner = self.until(")", Self::value).remove(0);
            return match &*word {
                "Some" => keep(inner),
                "StringValue" | "Type" | "PortValue" => inner,
                _ => Value::Map(word.clone(), vec![(word, keep(inner))]),
            };
        }
        match &*word {
            "None" => Value::Nothing,
            _ => Value::Scalar(word),
        }
    }

    fn until<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(item(self));
            self.eat(",");
        }
        items
    }

    fn word(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = if self.rest.starts_with('"') {
            let mut escaped = false;
            let close = self.rest.char_indices().skip(1).find(|(_, c)| {
                let closes = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                closes
            });
            close.expect("a closing quote").0 + 1
        } else {
            self.rest.find([' ', ',', ':', '(', ')', '{', '}', '[', ']']).unwrap_or(self.rest.len())
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }
}

/// What was set on purpose, though it is a default.
fn keep(value: Value) -> Value {
    let empty = matches!(&value, Value::Map(_, fields) if fields.is_empty());
    if empty { Value::Map(String::new(), vec![("{}".to_owned(), Value::Nothing)]) } else { value }
}

fn simplify(name: String, fields: Vec<(String, Value)>) -> Value {
    let field = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let scalar = |key: &str| if let Some(Value::Scalar(text)) = field(key) { text } else { String::new() };
    match &*name {
        "UInt32Value" | "BoolValue" | "Value" | "Struct" | "Percent" => {
            fields.into_iter().next().map(|(_, value)| value).unwrap_or(Value::Nothing)
        }
        "Duration" => {
            let nanos: u32 = scalar("nanos").parse().unwrap();
            Value::Scalar(format!("{}.{:03}s", scalar("seconds"), nanos / 1_000_000))
        }
        "Any" => {
            let bytes = if let Some(Value::List(bytes)) = field("value") { bytes } else { Vec::new() };
            let byte = |value: &Value| {
                let Value::Scalar(text) = value else { panic!("not a byte: {value:?}") };
                text.parse().unwrap()
            };
            let url = scalar("type_url").trim_matches('"').to_owned();
            let message = decode(&url, &bytes.iter().map(byte).collect::<Vec<u8>>());
            let kind = url.rsplit('.').next().unwrap_or_default().to_owned();
            Value::Map(kind.clone(), vec![(kind, keep(message))])
        }
        _ => {
            let set = fields.into_iter().filter(|(key, value)| !is_default(key, value));
            Value::Map(name, set.collect())
        }
    }
}

fn is_default(key: &str, value: &Value) -> bool {
    match value {
        Value::Scalar(text) => ["0", "false", "\"\"", "0.0"].contains(&&**text) || DEFAULTS.contains(&(key, text)),
        Value::List(items) => items.is_empty(),
        Value::Map(name, fields) => name.is_empty() && fields.is_empty(),
        Value::Nothing => true,
    }
}

fn write(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Nothing => {}
        Value::Scalar(text) => out.push_str(&format!("{indent}{text}\n")),
        Value::Map(_, fields) => {
            for (key, value) in fields {
                match value {
                    Value::Nothing => out.push_str(&format!("{indent}{key}\n")),
                    Value::Scalar(text) => out.push_str(&format!("{indent}{key}: {text}\n")),
                    Value::Map(..) | Value::List(_) => {
                        out.push_str(&format!("{indent}{key}:\n"));
                        write(value, depth + 1, out);
                    }
                }
            }
        }
        Value::List(items) => {
            for item in items {
                let mut text = String::new();
                write(item, depth + 1, &mut text);
                // The first line of an item carries the dash.
                out.push_str(&format!("{indent}- {}", text.trim_start()));
            }
        }
    }
}
