//! The command line as a user could type it again.

/// The words of this process's command line, quoted for a shell.
pub fn this_command() -> String {
    join(&std::env::args().collect::<Vec<_>>())
}

/// This command line with `--resume`.
pub fn resume_command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if words.get(1).is_none_or(|command| command != "eval")
        && !words.iter().any(|word| word == "--resume")
    {
        words.push("--resume".to_owned());
    }
    join(&words)
}

/// What to add to this command line to have it try again what did not end well.
pub fn retry_flags() -> &'static str {
    match std::env::args().nth(1).as_deref() {
        Some("eval") => "--retry-failed",
        _ => "--resume --retry-failed",
    }
}

fn join(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
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
