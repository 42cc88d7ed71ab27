//! Frames about the connection as a whole, as received: SETTINGS, PING, GOAWAY, WINDOW_UPDATE (RFC 9113 sections 6.5 to
//! 6.9).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::engine::Engine;
use super::error::{H2Error, ResetCode};
use super::frame::{self, Head, MAX_WINDOW, flag, kind, setting};
use super::receive::Trouble::{self, OfConnection, OfStream};
use super::stream::WRITE;

impl Engine {
    pub(super) fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Trouble> {
        if !payload.len().is_multiple_of(6) || (head.has(flag::ACK) && !payload.is_empty()) {
            return Err(OfConnection(ResetCode::FRAME_SIZE));
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        if !self.settled {
            // Unless it says otherwise, there is no bound (section 6.5.2).
            (self.settled, self.peer.max_streams) = (true, usize::MAX);
        }
        // All streams are gone through for it: once for each frame is enough.
        let mut window = None;
        for (name, value) in frame::settings(payload) {
            let number = usize::try_from(value).unwrap_or(usize::MAX);
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.resize(number),
                setting::ENABLE_PUSH if value > u32::from(self.server) => {
                    return Err(OfConnection(ResetCode::PROTOCOL));
                }
                setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = number,
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return Err(OfConnection(ResetCode::FLOW_CONTROL));
                }
                setting::INITIAL_WINDOW_SIZE => window = Some(value.into()),
                setting::MAX_HEADER_LIST_SIZE => self.peer.max_head = number,
                setting::MAX_FRAME_SIZE => {
                    if !(frame::DEFAULT_FRAME..=0x00ff_ffff).contains(&number) {
                        return Err(OfConnection(ResetCode::PROTOCOL));
                    }
                    self.peer.max_frame = number;
                }
                _ => {}
            }
        }
        if let Some(window) = window {
            self.initial_window(window)?;
        }
        self.answer(kind::SETTINGS, &[]);
        self.wake_openers();
        Ok(())
    }

    /// Changes the windows of all streams (section 6.9.2); they may become negative.
    fn initial_window(&mut self, window: i64) -> Result<(), Trouble> {
        let more = window.saturating_sub(self.peer.window);
        self.peer.window = window;
        let mut too_large = false;
        self.streams.each(|stream| {
            stream.send_window = stream.send_window.saturating_add(more);
            too_large |= stream.send_window > MAX_WINDOW;
            if more > 0 {
                stream.wake(WRITE);
            }
        });
        if too_large { Err(OfConnection(ResetCode::FLOW_CONTROL)) } else { Ok(()) }
    }

    pub(super) fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Trouble> {
        if payload.len() != 8 {
            return Err(OfConnection(ResetCode::FRAME_SIZE));
        }
        if head.has(flag::ACK) {
            self.answered(payload);
        } else {
            self.answer(kind::PING, payload);
        }
        Ok(())
    }

    /// Answers a frame of the peer's. How many of them it may leave unread is bounded.
    fn answer(&mut self, kind: u8, payload: &[u8]) {
        Head::write(kind, flag::ACK, 0, payload, self.out());
        self.counts.answers = self.counts.answers.saturating_add(frame::HEAD).saturating_add(payload.len());
        self.counts.answers_end = self.position();
    }

    /// GOAWAY (section 6.8): our streams beyond its last were not looked at.
    pub(super) fn goaway(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        let (last, rest) = payload.split_first_chunk::<4>().ok_or(OfConnection(ResetCode::FRAME_SIZE))?;
        let code = rest.first_chunk::<4>().ok_or(OfConnection(ResetCode::FRAME_SIZE))?;
        let (last, code) = (u32::from_be_bytes(*last) & 0x7fff_ffff, ResetCode(u32::from_be_bytes(*code)));
        self.told = true;
        if !self.server {
            for slot in self.streams.slots() {
                if self.streams.get(slot).is_some_and(|stream| stream.id > last) {
                    self.reset(slot, H2Error::Told(code), None);
                }
            }
        }
        self.wake_openers();
        Ok(())
    }

    pub(super) fn window(&mut self, id: u32, payload: &[u8]) -> Result<(), Trouble> {
        let by = frame::number(payload).ok_or(OfConnection(ResetCode::FRAME_SIZE))? & 0x7fff_ffff;
        if id == 0 {
            self.send_window = self.send_window.saturating_add(by.into());
            if by == 0 {
                return Err(OfConnection(ResetCode::PROTOCOL));
            }
            if self.send_window > MAX_WINDOW {
                return Err(OfConnection(ResetCode::FLOW_CONTROL));
            }
            self.next_turn();
            return Ok(());
        }
        if self.is_idle(id) {
            return Err(OfConnection(ResetCode::PROTOCOL));
        }
        let Some(stream) = self.streams.slot(id).and_then(|slot| self.streams.get(slot)) else { return Ok(()) };
        if by == 0 {
            return Err(OfStream(id, ResetCode::PROTOCOL));
        }
        stream.send_window = stream.send_window.saturating_add(by.into());
        if stream.send_window > MAX_WINDOW {
            return Err(OfStream(id, ResetCode::FLOW_CONTROL));
        }
        stream.wake(WRITE);
        Ok(())
    }
}
