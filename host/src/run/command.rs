//! The command line as a user could type it again.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::text::is_unseen;

/// The words of this process's command line, quoted for a shell.
pub fn this_command() -> String {
    join(&std::env::args_os().collect::<Vec<_>>())
}

/// What goes on with this command line: itself, with `--resume` where its command has that.
pub fn resume_command() -> String {
    join(&resumed(std::env::args_os().collect()))
}

fn resumed(mut words: Vec<OsString>) -> Vec<OsString> {
    let takes_it =
        command_of(&words).is_some_and(|command| RESUMED.iter().any(|one| command == *one));
    if takes_it && !words.iter().any(|word| word == "--resume") {
        // Behind `--` it would be a name.
        let end = words.iter().position(|word| word == "--");
        words.insert(end.unwrap_or(words.len()), "--resume".into());
    }
    words
}

/// Commands that take `--resume`.
const RESUMED: [&str; 3] = ["run", "reproduce", "checkpoint"];

/// The command of a command line: the first word behind the program that is no flag of every command.
fn command_of(words: &[OsString]) -> Option<&OsStr> {
    let mut words = words.iter().skip(1).map(OsString::as_os_str);
    words.find(|word| !word.as_bytes().starts_with(b"-"))
}

/// What to add to this command line to have it try again what did not end well.
pub fn retry_flags() -> &'static str {
    let words: Vec<OsString> = std::env::args_os().collect();
    match command_of(&words) {
        Some(command) if command == "eval" => "--retry-failed",
        _ => "--resume --retry-failed",
    }
}

/// A command that [`this_command`] wrote, perhaps elsewhere, with this program in the place of that one;
/// `None` of any other text, which might be more than one command.
pub fn by_this_program(command: &str) -> Option<String> {
    let program = std::env::args_os().next().unwrap_or_default();
    if command.chars().any(is_unseen) {
        return None;
    }
    let (mut rest, mut first) = (command, None);
    while let Some(c) = rest.chars().next() {
        if c == ' ' {
            first.get_or_insert(rest);
            rest = &rest[1..];
        } else {
            rest = after_piece(rest)?;
        }
    }
    Some(format!("{}{}", quote(&program), first.unwrap_or_default()))
}

/// What follows the first piece of a word as [`quote`] writes it.
fn after_piece(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix("$'") {
        let mut escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '\'' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        return Some(&quoted[end + 1..]);
    }
    if let Some(quoted) = text.strip_prefix('\'') {
        return Some(&quoted[quoted.find('\'')? + 1..]);
    }
    text.strip_prefix(r"\'")
        .or_else(|| text.strip_prefix(is_plain))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c)
}

fn join(words: &[OsString]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

/// A word as a shell reads it back: plain, in single quotes, or, where it holds control characters or is
/// not text, byte by byte in `$'..'`.
pub fn quote(word: &OsStr) -> String {
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) if !text.chars().any(is_unseen) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let byte = |byte: &u8| match byte {
                b'\'' | b'\\' => format!("\\{}", *byte as char),
                b' '..=b'~' => char::from(*byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            };
            let bytes: String = word.as_bytes().iter().map(byte).collect();
            format!("$'{bytes}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_others_is_one_command_of_this_program() {
        let program = quote(&std::env::args_os().next().unwrap());
        let with = |rest: &str| Some(format!("{program}{rest}"));
        let words: Vec<OsString> = [&b"longhaul"[..], b"run", b"a b", b"it's", b"o\xff'"]
            .iter()
            .map(|word| OsStr::from_bytes(word).to_owned())
            .collect();
        let rest = &join(&words)["longhaul".len()..];
        assert_eq!(by_this_program(&join(&words)), with(rest));
        assert_eq!(by_this_program("/tmp/evil run quick"), with(" run quick"));
        for bad in [
            "longhaul run; rm -rf x",
            "longhaul $(id)",
            "longhaul `id`",
            "longhaul\nid",
            "longhaul > x",
            "longhaul 'a",
            "longhaul $'a\\'",
            "longhaul \"$x\"",
            "longhaul '\u{1b}[2J'",
        ] {
            assert_eq!(by_this_program(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_command_goes_on_by_words_that_it_takes() {
        let resumed = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            join(&resumed(words))
        };
        for line in [
            "run quick",
            "-v --quiet run quick",
            "checkpoint eval m",
            "reproduce r",
        ] {
            let line = format!("longhaul {line}");
            assert_eq!(resumed(&line), format!("{line} --resume"));
            assert_eq!(resumed(&resumed(&line)), resumed(&line));
        }
        for line in ["longhaul -v eval r", "longhaul -qv collect run", "longhaul"] {
            assert_eq!(resumed(line), line);
        }
        assert_eq!(
            resumed("longhaul run -- quick"),
            "longhaul run --resume -- quick"
        );
    }

    #[test]
    fn words_survive_a_shell() {
        let bytes = |bytes: &[u8]| quote(OsStr::from_bytes(bytes));
        assert_eq!(bytes(b"o\xff'\\ 1"), r"$'o\xff\'\\ 1'");
        assert_eq!(bytes(b"a\x1b[1m\n"), r"$'a\x1b[1m\x0a'");
        let quote = |word: &str| quote(word.as_ref());
        assert_eq!(
            quote("--arch=mamba2:state=8,d_model=32"),
            "--arch=mamba2:state=8,d_model=32"
        );
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("pattern=a*3"), "'pattern=a*3'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
