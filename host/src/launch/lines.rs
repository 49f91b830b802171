//! What comes out of a worker's pipes, in bounded memory whatever it writes.

use crate::text;

/// Most bytes of one line of a worker.
const LONGEST: usize = 4 << 20;
/// How much of a worker's standard error is kept, in bytes: with `RUST_BACKTRACE` the reason stands in front of some
/// hundred lines.
const TAIL: usize = 1 << 16;

/// Cuts a stream into a worker's own lines: those that begin with its word.
pub struct Lines {
    word: Vec<u8>,
    begun: Vec<u8>,
    /// Whether the present line is somebody else's, and dropped up to its end.
    foreign: bool,
    /// Lines that were dropped.
    pub dropped: u64,
}

/// A line of its own that is longer than any.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a line of more than {} MiB", LONGEST >> 20)
    }
}

impl Lines {
    /// Of a worker that was given this word.
    pub fn new(word: &str) -> Self {
        Self {
            word: format!("{word} ").into_bytes(),
            begun: Vec::new(),
            foreign: false,
            dropped: 0,
        }
    }

    /// Takes some bytes, and gives each whole line of the worker's own to `on`, which says whether to go on.
    ///
    /// # Errors
    /// A line that is too long.
    pub fn push(&mut self, bytes: &[u8], on: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), TooLong> {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !self.foreign {
                self.begun.extend_from_slice(part);
                let known = self.begun.len().min(self.word.len());
                self.foreign = self.begun[..known] != self.word[..known];
            }
            let own = self.begun.len();
            if self.foreign {
                self.begun.clear();
            } else if own > LONGEST {
                return Err(TooLong);
            }
            if !part.ends_with(b"\n") {
                return Ok(());
            }
            if std::mem::take(&mut self.foreign) {
                // An empty line only ends what somebody else may have begun.
                self.dropped += u64::from(own > 1);
            } else if !on(&self.begun[self.word.len()..own - 1]) {
                return Ok(());
            }
            self.begun.clear();
        }
        Ok(())
    }
}

/// The end of a worker's standard error.
#[derive(Default)]
pub struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Takes some bytes and forgets the oldest.
    pub fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let excess = (self.bytes.len() + new.len()).saturating_sub(TAIL);
        self.bytes.drain(..excess);
        self.bytes.extend_from_slice(new);
    }

    /// The last line that says something; of a panic's message, which may have several, the first.
    pub fn last_line(&self) -> String {
        let words = String::from_utf8_lossy(&self.bytes);
        let lines: Vec<&str> = words.lines().map(str::trim).collect();
        let Some(last) = lines.iter().rposition(is_about) else {
            return String::new();
        };
        let before = lines[..last].iter().rev();
        let mut message = before.take_while(|line| is_about(line));
        let above = message.position(|line| line.contains(" panicked at "));
        text::line(lines[above.map_or(last, |above| last - above)])
    }
}

/// Whether a line says why a process ended. What Rust adds to a panic says how to see more, or where it was.
fn is_about(line: &&str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    // `12: some::function`, and below it `at src/some.rs:3:4`.
    let is_frame = line
        .split_once(": ")
        .is_some_and(|(number, _)| is_number(number));
    let place = line
        .strip_prefix("at ")
        .and_then(|place| place.rsplit_once(':'));
    let is_place = place.is_some_and(|(_, column)| is_number(column));
    let is_added =
        line.starts_with("note: ") || *line == "stack backtrace:" || line.ends_with("<unknown>");
    !(line.is_empty() || is_added || is_frame || is_place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &mut Lines, bytes: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut heard = Vec::new();
        lines.push(bytes, &mut |line| {
            heard.push(String::from_utf8_lossy(line).into_owned());
            true
        })?;
        Ok(heard)
    }

    #[test]
    fn only_lines_with_the_word_are_heard() {
        let mut lines = Lines::new("w0");
        assert_eq!(heard(&mut lines, b"w0 a\nother\nw0 b").unwrap(), ["a"]);
        assert_eq!(heard(&mut lines, b"c\nw0\nw0 \n\nw").unwrap(), ["bc", ""]);
        assert_eq!(heard(&mut lines, b"0").unwrap(), [""; 0]);
        assert_eq!(heard(&mut lines, b" d\n").unwrap(), ["d"]);
        assert_eq!(lines.dropped, 2);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut lines = Lines::new("w0");
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            assert_eq!(heard(&mut lines, &megabyte).unwrap(), [""; 0]);
            assert!(lines.begun.capacity() <= 2 << 20);
        }
        assert_eq!(heard(&mut lines, b"\nw0 a\nw0 ").unwrap(), ["a"]);
        let refused = (0..5).find_map(|_| heard(&mut lines, &megabyte).err());
        assert_eq!(refused, Some(TooLong), "not even of its own");
    }

    #[test]
    fn the_last_line_is_kept() {
        let mut tail = Tail::default();
        for number in 0..100_000 {
            tail.push(format!("{number}\n").as_bytes());
        }
        tail.push(b"why\x1b[1m\nnote: run with\n\n");
        assert_eq!(tail.last_line(), r"why\u{1b}[1m");
        assert!(tail.bytes.len() <= TAIL);
        tail.push(&vec![b'y'; 1 << 20]);
        assert!(tail.bytes.len() <= TAIL);
    }

    #[test]
    fn a_panic_is_told_by_its_message() {
        let told = |text: &str| {
            let mut tail = Tail::default();
            tail.push(text.as_bytes());
            tail.last_line()
        };
        let panic = "\nthread 'main' (7) panicked at src/a.rs:1:2:\nassertion failed\n  left: 1\n right: 2\n";
        let frames = "   0: __rustc::rust_begin_unwind\n             at /rustc/f/library/std/src/panicking.rs:689:5\n  \
             12: main\n";
        let note = "note: Some details are omitted, run with `RUST_BACKTRACE=full`\n";
        for after in [
            String::new(),
            note.to_owned(),
            format!("stack backtrace:\n{frames}{note}"),
        ] {
            assert_eq!(told(&format!("other\n{panic}{after}")), "assertion failed");
            // What is said after a panic that was caught is another matter.
            let later = told(&format!(
                "{panic}{after}\nmemory allocation of 9 bytes failed\n"
            ));
            assert_eq!(later, "memory allocation of 9 bytes failed");
        }
        assert_eq!(told(&format!("why\n{frames}")), "why");
        assert_eq!(told("at least 3 tokens\n"), "at least 3 tokens");
        assert_eq!(told(""), "");
    }
}
