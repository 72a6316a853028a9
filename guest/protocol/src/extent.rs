//! Where a msgpack value ends, found without recursion and without building it.

use rmp::Marker;

/// Deepest nesting accepted; no message has more than six levels.
const MAX_DEPTH: usize = 64;

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn number(rest: &mut &[u8], width: usize) -> Option<usize> {
    Some(take(rest, width)?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// True when `bytes` are exactly one well-formed value, nested at most 64 deep.
pub fn is_one_value(bytes: &[u8]) -> bool {
    walk(bytes).is_some_and(|rest| rest.is_empty())
}

fn walk(mut rest: &[u8]) -> Option<&[u8]> {
    // Values still to come, one number for each open array or map.
    let mut open = vec![1_usize];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let marker = Marker::from_u8(*take(&mut rest, 1)?.first()?);
        let children = match marker {
            Marker::FixArray(len) => usize::from(len),
            Marker::FixMap(len) => usize::from(len) * 2,
            Marker::Array16 => number(&mut rest, 2)?,
            Marker::Array32 => number(&mut rest, 4)?,
            Marker::Map16 => number(&mut rest, 2)? * 2,
            Marker::Map32 => number(&mut rest, 4)? * 2,
            scalar => {
                let length = scalar_len(scalar, &mut rest)?;
                take(&mut rest, length)?;
                continue;
            }
        };
        // Each value takes at least a byte, so a longer promise cannot be kept.
        if children > rest.len() || open.len() > MAX_DEPTH {
            return None;
        }
        open.push(children);
    }
    Some(rest)
}

fn scalar_len(marker: Marker, rest: &mut &[u8]) -> Option<usize> {
    Some(match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
        Marker::U8 | Marker::I8 => 1,
        Marker::U16 | Marker::I16 => 2,
        Marker::U32 | Marker::I32 | Marker::F32 => 4,
        Marker::U64 | Marker::I64 | Marker::F64 => 8,
        Marker::FixStr(len) => usize::from(len),
        Marker::Str8 | Marker::Bin8 => number(rest, 1)?,
        Marker::Str16 | Marker::Bin16 => number(rest, 2)?,
        Marker::Str32 | Marker::Bin32 => number(rest, 4)?,
        Marker::FixExt1 => 2,
        Marker::FixExt2 => 3,
        Marker::FixExt4 => 5,
        Marker::FixExt8 => 9,
        Marker::FixExt16 => 17,
        Marker::Ext8 => number(rest, 1)? + 1,
        Marker::Ext16 => number(rest, 2)? + 1,
        Marker::Ext32 => number(rest, 4)? + 1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::is_one_value;

    #[test]
    fn whole_values_are_recognised() {
        for good in [
            &[0xc0][..],
            &[0x93, 1, 2, 3],
            &[0x81, 0xa1, b'a', 0xc4, 2, 0, 0],
            &[0xd9, 1, b'x'],
            &[0xd4, 5, 6],
        ] {
            assert!(is_one_value(good), "{good:?}");
        }
    }

    #[test]
    fn cut_short_or_followed_by_more_is_refused() {
        for bad in
            [&[][..], &[0xc1], &[0xc0, 0xc0], &[0x93, 1, 2], &[0xc4, 2, 0], &[0xdd, 0xff, 0xff, 0xff, 0xff]]
        {
            assert!(!is_one_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut deep = vec![0x91; 100];
        deep.push(0xc0);
        assert!(!is_one_value(&deep));
        assert!(is_one_value(&deep[60..]));
    }
}
