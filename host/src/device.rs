//! Devices by name: `cpu`, or NVIDIA cards as `cuda:0` or `cuda:0,cuda:1`. Whether they are there is
//! asked by [`crate::commands::devices`].

use longhaul_plugin_api::data::{Device, DeviceKind};

/// Where workers run: the processor, or one card or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    names: Vec<String>,
}

impl Devices {
    /// From the command line: `cpu`, `cuda` (the first card), `cuda:N`, or several cards with commas.
    ///
    /// # Errors
    /// Another text; a card named twice; the processor beside a card.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        for word in text.split(',') {
            let name = match (word, word.strip_prefix("cuda:").map(str::parse::<u32>)) {
                ("cpu", _) => word.to_owned(),
                ("cuda", _) => "cuda:0".to_owned(),
                (_, Some(Ok(index))) => format!("cuda:{index}"),
                _ => {
                    return Err(format!(
                        "device `{word}` is unknown; write cpu, or cuda:0 for the first NVIDIA card, or cuda:0,cuda:1 for two (`longhaul devices` lists what is here)"
                    ));
                }
            };
            if names.contains(&name) {
                return Err(format!(
                    "device `{text}` names {name} twice; several workers on one device are --jobs"
                ));
            }
            names.push(name);
        }
        if names.len() > 1 && names.iter().any(|name| name == "cpu") {
            return Err(format!(
                "device `{text}` mixes cpu and cards; a run is on one kind"
            ));
        }
        Ok(Self { names })
    }

    /// One device alone.
    ///
    /// # Errors
    /// As [`Devices::parse`]; several.
    pub fn parse_one(text: &str) -> Result<String, String> {
        let mut devices = Self::parse(text)?;
        match devices.names.len() {
            1 => Ok(devices.names.remove(0)),
            _ => Err(format!(
                "device `{text}` names several cards; this command uses one"
            )),
        }
    }

    /// `cpu` or `cuda`.
    pub fn kind(&self) -> &str {
        kind(&self.names[0])
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The device of a slot for workers: the slots go round the cards.
    pub fn of_slot(&self, slot: usize) -> &str {
        &self.names[slot % self.names.len()]
    }

    /// All of it, as on the command line.
    pub fn text(&self) -> String {
        self.names.join(",")
    }
}

/// The kind of a device, or of several of one kind: `cpu` or `cuda`.
pub fn kind(names: &str) -> &str {
    names.split(':').next().unwrap_or(names)
}

/// A checked device's name as the ABI has it.
pub fn named(name: &str, threads: u32) -> Device {
    let index = name
        .strip_prefix("cuda:")
        .and_then(|index| index.parse().ok());
    Device {
        kind: if index.is_some() {
            DeviceKind::Cuda
        } else {
            DeviceKind::Cpu
        },
        index: index.unwrap_or(0),
        threads: threads.max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let text = |text: &str| Devices::parse(text).map(|devices| devices.text());
        assert_eq!(text("cpu").unwrap(), "cpu");
        assert_eq!(text("cuda").unwrap(), "cuda:0");
        assert_eq!(text("cuda:3,cuda:1").unwrap(), "cuda:3,cuda:1");
        let refusal = |given: &str| text(given).unwrap_err();
        assert!(refusal("gpu").contains("cuda:0 for the first"));
        assert!(refusal("").contains("`` is unknown"));
        assert!(refusal("cuda:x").contains("unknown"));
        assert!(refusal("cuda:0,").contains("unknown"));
        assert!(refusal("cuda:0,cuda").contains("twice"));
        assert!(refusal("cpu,cuda:0").contains("one kind"));
        assert!(Devices::parse_one("cuda:0,cuda:1").is_err());
        assert_eq!(Devices::parse_one("cuda:1").unwrap(), "cuda:1");
    }

    #[test]
    fn slots_go_round() {
        let devices = Devices::parse("cuda:0,cuda:2").unwrap();
        let of: Vec<&str> = (0..4).map(|slot| devices.of_slot(slot)).collect();
        assert_eq!(of, ["cuda:0", "cuda:2", "cuda:0", "cuda:2"]);
        assert_eq!(devices.kind(), "cuda");
    }

    #[test]
    fn as_the_abi_has_it() {
        assert_eq!(named("cpu", 2).kind, DeviceKind::Cpu);
        let card = Device {
            kind: DeviceKind::Cuda,
            index: 1,
            threads: 1,
        };
        assert_eq!(named("cuda:1", 0), card);
    }
}
