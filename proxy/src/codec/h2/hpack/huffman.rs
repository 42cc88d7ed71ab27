//! The Huffman code of HPACK (RFC 7541 section 5.2 and Appendix B), as read. Nothing is written in it: it costs more
//! cycles than the bytes it saves are worth between neighbours.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

/// Bits of each byte's code. The code is canonical: shorter codes first, then by the byte.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];

/// Longest code.
const LONGEST: usize = 30;

/// What the code is made of, computed from [`LENGTHS`].
struct Code {
    /// By the next eight bits: length and byte; length 0 where the code is longer.
    fast: [(u8, u8); 256],
    /// By length: the code after the last one, aligned to the left of 32 bits.
    end: [u64; LONGEST + 1],
    /// By length: the first code.
    first: [u64; LONGEST + 1],
    /// By length: where its bytes begin in `order`.
    at: [usize; LONGEST + 1],
    order: [u8; 256],
}

static CODE: Code = code();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "computed by the compiler, which stops at a mistake"
)]
const fn code() -> Code {
    let mut made = Code {
        fast: [(0, 0); 256],
        end: [0; LONGEST + 1],
        first: [0; LONGEST + 1],
        at: [0; LONGEST + 1],
        order: [0; 256],
    };
    let (mut next, mut placed, mut length) = (0u64, 0, 1);
    while length <= LONGEST {
        next <<= 1;
        made.first[length] = next;
        made.at[length] = placed;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                made.order[placed] = byte as u8;
                if length <= 8 {
                    let mut low = 0;
                    while low < 1 << (8 - length) {
                        made.fast[((next as usize) << (8 - length)) + low] = (length as u8, byte as u8);
                        low += 1;
                    }
                }
                placed += 1;
                next += 1;
            }
            byte += 1;
        }
        made.end[length] = next << (32 - length);
        length += 1;
    }
    made
}

/// The bytes are no text of this code: it ends in the middle, with the wrong padding, or holds EOS.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad;

/// Appends the text to `out`.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
    let mut bytes = input.iter();
    // The bits at hand stand at the left end.
    let (mut bits, mut have) = (0u64, 0u32);
    loop {
        while have <= 48 {
            let Some(byte) = bytes.next() else { break };
            bits |= u64::from(*byte).wrapping_shl(56u32.wrapping_sub(have));
            have = have.wrapping_add(8);
        }
        if have == 0 {
            return Ok(());
        }
        // What is missing reads as ones, as padding does.
        let window = (bits | u64::MAX.checked_shr(have).unwrap_or(0)) >> 32;
        let (length, byte) =
            next(window).ok_or(Bad).or_else(|bad| if have < 8 { Ok((u32::MAX, 0)) } else { Err(bad) })?;
        if length > have {
            // Less than a byte, all ones (section 5.2).
            return if have < 8 && window == u64::from(u32::MAX) { Ok(()) } else { Err(Bad) };
        }
        out.push(byte);
        bits = bits.wrapping_shl(length);
        have = have.wrapping_sub(length);
    }
}

/// The length of the first code in `window` and its byte; none for EOS.
fn next(window: u64) -> Option<(u32, u8)> {
    let (length, byte) = *CODE.fast.get(usize::try_from(window >> 24).ok()?)?;
    if length > 0 {
        return Some((u32::from(length), byte));
    }
    let length = (9..=LONGEST).find(|length| CODE.end.get(*length).is_some_and(|end| window < *end))?;
    let code = window >> 32usize.wrapping_sub(length);
    let place = CODE.at.get(length)?.wrapping_add(usize::try_from(code.wrapping_sub(*CODE.first.get(length)?)).ok()?);
    Some((u32::try_from(length).ok()?, *CODE.order.get(place)?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "a mistake is a failing test")]

    use super::*;

    fn text(input: &[u8]) -> Result<Vec<u8>, Bad> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    /// The code of `byte`, and its length.
    fn written(byte: u8) -> (u64, u8) {
        let length = LENGTHS[usize::from(byte)];
        let place = CODE.order.iter().position(|other| *other == byte).unwrap() - CODE.at[usize::from(length)];
        (CODE.first[usize::from(length)] + place as u64, length)
    }

    fn encode(text: &[u8]) -> Vec<u8> {
        let bits: Vec<bool> = text
            .iter()
            .flat_map(|byte| {
                let (code, length) = written(*byte);
                (0..length).rev().map(move |bit| code >> bit & 1 == 1)
            })
            .collect();
        bits.chunks(8)
            .map(|bits| (0..8).fold(0, |byte, at| byte << 1 | u8::from(*bits.get(at).unwrap_or(&true))))
            .collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // Appendix C.4.
        assert_eq!(
            text(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]).unwrap(),
            b"www.example.com"
        );
        assert_eq!(text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(text(b"").unwrap(), b"");
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(text(&encode(&all)).unwrap(), all);
        for byte in 0..=255 {
            assert_eq!(text(&encode(&[byte])).unwrap(), [byte], "{byte}");
        }
    }

    #[test]
    fn padding_and_eos() {
        assert_eq!(text(&[0xff]), Err(Bad), "a byte of padding");
        assert_eq!(text(&[0x1f, 0xff]), Err(Bad), "a and more than seven bits");
        assert_eq!(text(&[0x1f]).unwrap(), b"a");
        assert_eq!(text(&[0x18]), Err(Bad), "zeros");
        assert_eq!(text(&[0xff; 4]), Err(Bad), "EOS");
        assert_eq!(text(&[0xff; 5]), Err(Bad), "EOS and more");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(input: Vec<u8>) {
            let _ = text(&input);
        }
    }
}
