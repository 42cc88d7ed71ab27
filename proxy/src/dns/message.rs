//! Bytes of a client -> a question, or the refusal it gets; an answer -> bytes that fit the client. Pure. Whatever the
//! bytes, nothing here panics; lexing is hickory's.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::unreachable
)]

use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::opt::EdnsOption;
use hickory_resolver::proto::rr::{DNSClass, Name, Record, RecordType};

/// Largest question that is read. Questions have at most some 300 bytes, and options of EDNS beside.
pub(super) const MAX_QUESTION_BYTES: usize = 4096;

/// Largest reply over UDP, whatever the client says it takes. Clients are of this pod, so nothing fragments.
const MAX_UDP_REPLY_BYTES: u16 = 4096;

/// Bytes of a header, the least a message has.
const HEADER_BYTES: usize = 12;

/// Option "Extended DNS Error". Source: RFC 8914, section 2.
const EXTENDED_ERROR: u16 = 15;

/// Longest text in an extended error.
const MAX_NOTE_BYTES: usize = 200;

/// A question that can be answered, and how its client wants the reply.
#[derive(Clone, Debug)]
pub(super) struct Question {
    id: u16,
    recursion_desired: bool,
    /// What is asked.
    pub(super) query: Query,
    /// The client wants signatures.
    pub(super) dnssec_ok: bool,
    /// The client checks signatures itself.
    pub(super) checking_disabled: bool,
    /// What the client takes over UDP; none: it knows no EDNS.
    payload: Option<u16>,
}

/// What bytes are.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A question.
    Question(Box<Question>),
    /// Something to refuse with these bytes.
    Refused(Vec<u8>),
    /// Nothing that may be answered: too short, or itself a reply, which two servers would send to and fro for ever.
    Nothing,
}

/// A reply but for the client's own part.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// How it went.
    pub(super) code: ResponseCode,
    /// Records of the three sections, without options.
    pub(super) answers: Vec<Record>,
    /// Whose zone it is, for negative answers.
    pub(super) authorities: Vec<Record>,
    /// What may be of use.
    pub(super) additionals: Vec<Record>,
    /// The mesh says so, whose names they are.
    pub(super) authoritative: bool,
    /// The nameserver has checked signatures.
    pub(super) authentic: bool,
    /// Code and text of an extended error.
    pub(super) note: Option<(u16, String)>,
}

impl Answer {
    /// An answer without records.
    pub(super) const fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            authoritative: false,
            authentic: false,
            note: None,
        }
    }
}

/// Takes bytes apart.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Parsed::Nothing };
    let [id_high, id_low, flags, ..] = *header;
    if flags & 0x80 != 0 {
        return Parsed::Nothing;
    }
    let (id, op_code) = (u16::from_be_bytes([id_high, id_low]), OpCode::from_u8((flags >> 3) & 0xf));
    let refuse = |code| refusal(id, op_code, code);
    let Ok(message) = Message::from_vec(bytes) else { return refuse(ResponseCode::FormErr) };
    if message.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let ([query], [], []) = (&*message.queries, &*message.answers, &*message.authorities) else {
        return refuse(ResponseCode::FormErr);
    };
    if message.version() != 0 {
        return refuse(ResponseCode::BADVERS);
    }
    let transfer = [RecordType::AXFR, RecordType::IXFR].contains(&query.query_type());
    if query.query_class() != DNSClass::IN || transfer {
        return refuse(ResponseCode::Refused);
    }
    Parsed::Question(Box::new(Question {
        id,
        recursion_desired: message.metadata.recursion_desired,
        dnssec_ok: message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
        checking_disabled: message.metadata.checking_disabled,
        payload: message.edns.as_ref().map(|_| message.max_payload()),
        query: query.clone(),
    }))
}

fn refusal(id: u16, op_code: OpCode, code: ResponseCode) -> Parsed {
    let mut message = Message::new(id, MessageType::Response, op_code);
    message.metadata.response_code = code;
    if code == ResponseCode::BADVERS {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_REPLY_BYTES);
        edns.set_rcode_high(code.high());
        message.set_edns(edns);
    }
    message.to_vec().map_or(Parsed::Nothing, Parsed::Refused)
}

impl Question {
    /// The name asked for.
    pub(super) fn name(&self) -> &Name {
        self.query.name()
    }

    /// The type asked for.
    pub(super) fn kind(&self) -> RecordType {
        self.query.query_type()
    }

    /// The reply over UDP: cut to what the client takes, and marked so that it asks again over TCP.
    pub(super) fn udp(&self, answer: Answer) -> Option<Vec<u8>> {
        let limit = usize::from(self.payload.unwrap_or(512).min(MAX_UDP_REPLY_BYTES));
        let message = self.message(answer);
        let bytes = message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
        bytes.or_else(|| message.truncate().to_vec().ok())
    }

    /// The reply over TCP, with its length in front. One that no message can hold becomes SERVFAIL.
    pub(super) fn tcp(&self, answer: Answer) -> Option<Vec<u8>> {
        let bytes = self.message(answer).to_vec().ok().filter(|bytes| bytes.len() <= usize::from(u16::MAX));
        let bytes = bytes.or_else(|| self.message(Answer::empty(ResponseCode::ServFail)).to_vec().ok())?;
        let length = u16::try_from(bytes.len()).ok()?;
        Some([&length.to_be_bytes()[..], &bytes].concat())
    }

    fn message(&self, answer: Answer) -> Message {
        let mut message = Message::new(self.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.authoritative = answer.authoritative;
        message.metadata.authentic_data = answer.authentic;
        message.metadata.response_code = answer.code;
        message.add_query(self.query.clone());
        message.answers = answer.answers;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_REPLY_BYTES);
            edns.set_dnssec_ok(self.dnssec_ok);
            edns.set_rcode_high(answer.code.high());
            if let Some((code, text)) = answer.note {
                let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_NOTE_BYTES).last();
                let text = text.get(..end.unwrap_or(0).max(text.len().min(MAX_NOTE_BYTES))).unwrap_or_default();
                let value = [&code.to_be_bytes()[..], text.as_bytes()].concat();
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, value));
            }
            message.set_edns(edns);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::proto::rr::RData;
    use hickory_resolver::proto::rr::rdata::A;

    use super::*;

    fn asked(payload: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("Example.com.").unwrap(), RecordType::A));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn question(bytes: &[u8]) -> Question {
        match parse(bytes) {
            Parsed::Question(question) => *question,
            other @ (Parsed::Refused(_) | Parsed::Nothing) => panic!("{other:?}"),
        }
    }

    fn many(count: u8) -> Answer {
        let record = |n| {
            let name = Name::from_ascii("example.com.").unwrap();
            Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(10, 0, 0, n))))
        };
        Answer { answers: (0..count).map(record).collect(), ..Answer::empty(ResponseCode::NoError) }
    }

    fn code(parsed: Parsed) -> Option<ResponseCode> {
        match parsed {
            Parsed::Refused(bytes) => Some(Message::from_vec(&bytes).unwrap().metadata.response_code),
            Parsed::Question(_) | Parsed::Nothing => None,
        }
    }

    #[test]
    fn a_reply_fits_what_its_client_takes() {
        for (payload, count, truncated) in [
            (None, 20, false),
            (None, 40, true),
            (Some(1232), 40, false),
            (Some(100), 40, true),
            (Some(60000), 120, false),
        ] {
            let question = question(&asked(payload));
            let reply = Message::from_vec(&question.udp(many(count)).unwrap()).unwrap();
            assert_eq!(reply.metadata.truncation, truncated, "{payload:?} {count}");
            assert_eq!(reply.metadata.id, 7);
            assert_eq!(reply.edns.is_some(), payload.is_some());
            assert_eq!(reply.queries[0].name().to_ascii(), "Example.com.", "as it was asked");
            let framed = question.tcp(many(count)).unwrap();
            assert_eq!(Message::from_vec(&framed[2..]).unwrap().answers.len(), usize::from(count));
        }
    }

    #[test]
    fn what_is_no_question_is_refused_with_a_code() {
        let bytes = asked(Some(1232));
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, expected) in [
            (bytes[..bytes.len() - 15].to_vec(), Some(ResponseCode::FormErr)),
            (with(5, 0), Some(ResponseCode::FormErr)),
            (with(5, 2), Some(ResponseCode::FormErr)),
            (with(7, 1), Some(ResponseCode::FormErr)),
            (with(2, 0x28), Some(ResponseCode::NotImp)),
            (with(28, 3), Some(ResponseCode::Refused)),
            (with(26, 252), Some(ResponseCode::Refused)),
            // The same number, 16, in two registries; hickory reads it as this one.
            (with(35, 1), Some(ResponseCode::BADSIG)),
            (with(2, 0x80), None),
            (bytes[..11].to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(code(parse(&bytes)), expected, "{bytes:?}");
        }
    }

    #[test]
    fn the_reason_of_a_failure_is_in_the_reply() {
        let answer = Answer { note: Some((22, "é".repeat(300))), ..Answer::empty(ResponseCode::ServFail) };
        let reply = Message::from_vec(&question(&asked(Some(1232))).udp(answer.clone()).unwrap()).unwrap();
        let options = reply.edns.unwrap();
        let (_, option) = options.options().as_ref().iter().next().unwrap();
        let EdnsOption::Unknown(15, value) = option else { panic!("{option:?}") };
        assert_eq!(value[..2], [0, 22]);
        let text = std::str::from_utf8(&value[2..]).unwrap();
        assert!(text.len() <= MAX_NOTE_BYTES && text.starts_with('é'), "{text}");
        assert!(Message::from_vec(&question(&asked(None)).udp(answer).unwrap()).unwrap().edns.is_none());
    }

    proptest::proptest! {
        /// Any bytes, and any question that was bent: no panic, and every refusal can be read.
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
            flips in proptest::collection::vec((0usize..60, proptest::num::u8::ANY), 0..6),
        ) {
            let mut bent = asked(Some(1232));
            for (at, byte) in flips {
                if let Some(target) = bent.get_mut(at) {
                    *target = byte;
                }
            }
            for bytes in [bytes, bent] {
                match parse(&bytes) {
                    Parsed::Question(question) => {
                        proptest::prop_assert!(question.udp(many(200)).is_some());
                        proptest::prop_assert!(question.tcp(many(200)).is_some());
                    }
                    Parsed::Refused(reply) => proptest::prop_assert!(Message::from_vec(&reply).is_ok()),
                    Parsed::Nothing => {}
                }
            }
        }
    }
}
