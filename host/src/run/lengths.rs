//! Lengths, ranges and sizes as text: `64..16384`, `64,100,1K`, `3..40`, `4G`. Knows no task: whether a
//! length is allowed is decided where the plan is made.

use longhaul_tasks::bounds::MEMORY_BYTES;

use crate::number::LENGTH;
use crate::run::error::RunError;

/// Most lengths one list may have: more is a slip of the keyboard.
const MOST_LENGTHS: usize = 64;

/// Parses evaluation lengths: numbers and ranges of doublings (`64..1K` is 64, 128, ... 1024), separated
/// by commas. A range has both its ends, so `64..100` is 64 and 100. `K` and `M` are 2^10 and 2^20. The
/// result is sorted, without repetitions.
///
/// # Errors
/// Text of another form, a range that runs backwards, length 0, too many lengths.
pub fn parse_lengths(text: &str) -> Result<Vec<usize>, RunError> {
    let mut lengths = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once("..") {
            None => lengths.push(parse_length(part, text)?),
            Some((first, last)) => {
                let (first, last) = (parse_length(first, text)?, parse_length(last, text)?);
                if first > last {
                    return Err(bad(
                        text,
                        "a range goes from the shorter to the longer length",
                    ));
                }
                lengths.extend(doublings(first, last));
                lengths.push(last);
            }
        }
    }
    lengths.sort_unstable();
    lengths.dedup();
    if lengths.len() > MOST_LENGTHS {
        return Err(bad(text, "that is more than 64 lengths"));
    }
    Ok(lengths)
}

/// `first`, twice it, and so on up to `last`, both in tokens.
pub fn doublings(first: usize, last: usize) -> Vec<usize> {
    std::iter::successors(Some(first), |length| length.checked_mul(2))
        .take_while(|&length| length <= last)
        .collect()
}

/// Parses a training length, `64`, or a range of them, `3..40`: shortest and longest, in tokens.
///
/// # Errors
/// Text of another form, a range that runs backwards, length 0.
pub fn parse_range(text: &str) -> Result<(usize, usize), RunError> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (parse_length(first, text)?, parse_length(last, text)?);
    if first > last {
        return Err(bad(
            text,
            "a range goes from the shorter to the longer length",
        ));
    }
    Ok((first, last))
}

/// Parses the memory of a worker in bytes: `4000000000`, `512M`, `4G`, `4GiB`; the letters are powers of
/// 1024.
///
/// # Errors
/// Text of another form; less than a worker needs, or more than any machine has.
pub fn parse_size(text: &str) -> Result<u64, RunError> {
    let trimmed = text.trim();
    let upper = trimmed.to_ascii_uppercase();
    let short = upper
        .strip_suffix("IB")
        .or_else(|| upper.strip_suffix('B'))
        .unwrap_or(&upper);
    let (digits, shift) = match short.char_indices().last() {
        Some((end, 'K')) => (&short[..end], 10),
        Some((end, 'M')) => (&short[..end], 20),
        Some((end, 'G')) => (&short[..end], 30),
        Some((end, 'T')) => (&short[..end], 40),
        _ => (short, 0),
    };
    let number: Option<f64> = digits.trim().parse().ok();
    let bytes = number.filter(|number| *number >= 0.0);
    let bytes = bytes.map(|number: f64| (number * f64::from(2_f32.powi(shift))) as u64);
    match bytes {
        Some(bytes) if MEMORY_BYTES.contains(&bytes) => Ok(bytes),
        _ => Err(RunError::Input(format!(
            "--memory-limit is `{text}`; it can be {}M to {}T, in bytes or with K, M, G or T",
            MEMORY_BYTES.start() >> 20,
            MEMORY_BYTES.end() >> 40
        ))),
    }
}

fn parse_length(part: &str, whole: &str) -> Result<usize, RunError> {
    let part = part.trim();
    let (digits, shift) = match part.char_indices().last() {
        Some((end, 'k' | 'K')) => (&part[..end], 10),
        Some((end, 'm' | 'M')) => (&part[..end], 20),
        _ => (part, 0),
    };
    let number: usize = digits
        .parse()
        .map_err(|_| bad(whole, &format!("`{part}` is not a whole number")))?;
    let length = number.checked_mul(1 << shift);
    length
        .filter(|length| LENGTH.contains(length))
        .ok_or_else(|| bad(whole, &format!("`{part}` is not in 1..{}", LENGTH.end())))
}

fn bad(text: &str, why: &str) -> RunError {
    RunError::Input(format!(
        "lengths `{text}`: {why}; write lengths in tokens, such as 64,128,256 or 64..16384 (doublings, with both ends)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_doublings_and_lists_are_sorted() {
        assert_eq!(
            parse_lengths("64..16384").unwrap(),
            [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
        );
        assert_eq!(parse_lengths("256, 64,100,64").unwrap(), [64, 100, 256]);
        assert_eq!(parse_lengths("64..100").unwrap(), [64, 100]);
        assert_eq!(
            parse_lengths("96..400,1K").unwrap(),
            [96, 192, 384, 400, 1024]
        );
        assert_eq!(parse_lengths("1M").unwrap(), [1 << 20]);
    }

    #[test]
    fn other_text_is_refused_by_name() {
        for text in [
            "",
            "64..",
            "a",
            "128..64",
            "0",
            "64,,128",
            "-5",
            "64...128",
            "64..18446744073709551615",
            "18446744073709551615M",
        ] {
            let message = parse_lengths(text).unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`")), "{message}");
        }
    }

    #[test]
    fn training_lengths() {
        assert_eq!(parse_range("64").unwrap(), (64, 64));
        assert_eq!(parse_range("3..40").unwrap(), (3, 40));
        assert!(parse_range("40..3").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4000000000").unwrap(), 4_000_000_000);
        assert_eq!(parse_size("512M").unwrap(), 512 << 20);
        assert_eq!(parse_size("1.5GiB").unwrap(), 3 << 29);
        assert!(parse_size("4X").is_err());
        for bad in ["0", "1", "15M", "nan", "inf", "-4G", "1e30", "2000T"] {
            let message = parse_size(bad).unwrap_err().to_string();
            let words = format!("--memory-limit is `{bad}`; it can be 16M to");
            assert!(message.contains(&words), "{message}");
        }
    }
}
