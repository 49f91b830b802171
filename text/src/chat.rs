//! A checkpoint's chat template as what stands around a message, used only where it is asked for.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use crate::error::TextError;
use crate::files;
use crate::special::word;

/// Largest file that is read, in bytes.
const MOST: u64 = 16 << 20;
/// Steps that a template may take; published ones need some hundreds for one message.
const FUEL: u64 = 100_000;
/// Stands for the message, which is not needed to know what stands around it.
const MESSAGE: &str = "MESSAGE-2404-06654";

/// What a chat template puts around a user's message with which a conversation begins, up to where the answer
/// begins: special tokens as text, a BOS included where the template writes one, and a system's message where the
/// template has one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// SHA-256 of the template's text, in hexadecimal.
    pub sha256: String,
    /// In front of the message.
    pub before: String,
    /// Behind the message: the end of its turn and the beginning of the answer's.
    pub after: String,
    /// Whether white space at the message's ends is left out.
    pub trims: bool,
}

impl Chat {
    /// The template of a checkpoint's folder: the file `chat_template.jinja`, else `chat_template` of
    /// `tokenizer_config.json`, a text or a list of named ones of which it is `default` (transformers,
    /// `PreTrainedTokenizerBase.from_pretrained` and `apply_chat_template` with `add_generation_prompt=True`).
    ///
    /// # Errors
    /// There is none; it is not Jinja, refuses a user's message, changes it, or begins with two BOS. With file and key.
    pub fn of_folder(folder: &Path) -> Result<Self, TextError> {
        let config_path = folder.join("tokenizer_config.json");
        let config = match config_path.exists() {
            true => files::json(&config_path, MOST)?,
            false => serde_json::Value::Null,
        };
        let jinja = folder.join("chat_template.jinja");
        let (template, path, what) = if jinja.exists() {
            let text = String::from_utf8(files::read(&jinja, MOST)?);
            let text = text.map_err(|_| TextError::not(&jinja, "is no UTF-8"))?;
            (text, jinja, "it")
        } else {
            let text = template_of(&config).map_err(|why| TextError::not(&config_path, why))?;
            (text, config_path, "`chat_template`")
        };
        let named = config.as_object().into_iter().flatten();
        let tokens: Vec<(String, String)> = named
            .filter(|(key, _)| key.ends_with("_token"))
            .filter_map(|(key, value)| Some((key.clone(), word(Some(value))?.to_owned())))
            .collect();
        let chat = Self::of_template(&template, &tokens);
        chat.map_err(|why| TextError::not(&path, format!("{what} cannot be used: {why}")))
    }

    fn of_template(template: &str, tokens: &[(String, String)]) -> Result<Self, String> {
        let (before, after) = around(MESSAGE, template, tokens)?;
        let spaced = around(&format!(" \n{MESSAGE}\n "), template, tokens)?;
        let trims = spaced == (before.clone(), after.clone());
        if !trims && spaced != (format!("{before} \n"), format!("\n {after}")) {
            return Err("it changes white space at the ends of a message".to_owned());
        }
        let bos = tokens.iter().find(|(name, _)| name == "bos_token");
        if let Some((_, bos)) = bos.filter(|(_, bos)| before.starts_with(&bos.repeat(2))) {
            return Err(format!("it begins with the BOS `{bos}` twice"));
        }
        Ok(Self {
            sha256: files::sha256_of(template.as_bytes()),
            before,
            after,
            trims,
        })
    }

    /// The prompt of a message.
    pub fn turn(&self, message: &str) -> String {
        let message = if self.trims { message.trim() } else { message };
        format!("{}{message}{}", self.before, self.after)
    }
}

/// The template that a tokenizer_config.json holds.
fn template_of(config: &serde_json::Value) -> Result<String, String> {
    let none =
        "has no `chat_template`, and there is no chat_template.jinja beside it; ask for none";
    let template = match config.get("chat_template") {
        None | Some(serde_json::Value::Null) => return Err(none.to_owned()),
        Some(serde_json::Value::Array(list)) => {
            let named = list.iter().find(|one| one["name"] == "default");
            named.and_then(|one| one["template"].as_str())
        }
        Some(one) => one.as_str(),
    };
    let wrong =
        "has a `chat_template` that is neither a text nor a list with one of the name `default`";
    template.map(str::to_owned).ok_or_else(|| wrong.to_owned())
}

/// What a template writes before and behind [`MESSAGE`] in a message, special tokens by name. Tools and documents are
/// none, and there is no clock: a template that asks for today's date takes its own.
fn around(
    message: &str,
    template: &str,
    tokens: &[(String, String)],
) -> Result<(String, String), String> {
    let why = |error: Error| error.to_string();
    let mut environment = Environment::new();
    // White space around blocks as transformers has it.
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    environment.set_syntax(syntax.build().map_err(why)?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |why: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, why))
    });
    let named = tokens.iter().cloned();
    let named: BTreeMap<String, String> = named.collect();
    let said = context! {
        messages => [context! { role => "user", content => message }],
        add_generation_prompt => true,
        tools => Value::from(()),
        documents => Value::from(()),
        ..Value::from(named)
    };
    let text = environment.render_str(template, said).map_err(why)?;
    let mut found = text.split(MESSAGE);
    match (found.next(), found.next(), found.next()) {
        (Some(before), Some(after), None) => Ok((before.to_owned(), after.to_owned())),
        _ => Err("it does not write a user's message once, as it is".to_owned()),
    }
}
