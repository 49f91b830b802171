//! Numbers, texts and lists out of the bytes of a GGUF file, each within them.

/// Most keys and most tensors: far over any model's.
const MOST_ENTRIES: u64 = 1 << 17;
/// Longest name of a key or tensor in bytes.
const LONGEST_NAME: usize = 1 << 10;

/// A value of the metadata.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Any of the eight integer types.
    Whole(i128),
    /// float32 or float64, in the fewest digits that are it.
    Real(f64),
    /// A bool.
    Yes(bool),
    /// A text, which should be UTF-8.
    Text(&'a [u8]),
    /// An array.
    List(List<'a>),
}

/// An array of the metadata. Its bytes were walked through once, so that its values are there.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    kind: u32,
    count: u64,
    bytes: &'a [u8],
}

impl<'a> List<'a> {
    /// The values in their order.
    pub fn values(self) -> impl Iterator<Item = Value<'a>> {
        let mut reader = Reader {
            bytes: self.bytes,
            at: 0,
        };
        (0..self.count).map_while(move |_| reader.value(self.kind).ok())
    }
}

/// A place in the file.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The start of a file's bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// All of the file's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.at as u64
    }

    /// So many bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let left = &self.bytes[self.at..];
        if count > left.len() as u64 {
            return Err(format!(
                "it needs {count} bytes at byte {}, and the file has {}; it is cut short or damaged",
                self.at,
                left.len()
            ));
        }
        self.at += count as usize;
        Ok(&left[..count as usize])
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        Ok(std::array::from_fn(|index| bytes[index]))
    }

    /// A whole number of 4 bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u32(&mut self) -> Result<u32, String> {
        self.word().map(u32::from_le_bytes)
    }

    /// A whole number of 8 bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u64(&mut self) -> Result<u64, String> {
        self.word().map(u64::from_le_bytes)
    }

    /// A number of keys or tensors.
    ///
    /// # Errors
    /// More than any model has.
    pub fn count(&mut self, what: &str) -> Result<u64, String> {
        let count = self.u64()?;
        match count > MOST_ENTRIES {
            true => Err(format!(
                "it says that it has {count} {what}; at most {MOST_ENTRIES} are read"
            )),
            false => Ok(count),
        }
    }

    fn text(&mut self) -> Result<&'a [u8], String> {
        let length = self.u64()?;
        self.take(length)
    }

    /// A name of a key or tensor.
    ///
    /// # Errors
    /// One that is too long, cut, or not UTF-8.
    pub fn name(&mut self) -> Result<&'a str, String> {
        let bytes = self.text()?;
        match std::str::from_utf8(bytes) {
            Ok(name) if bytes.len() <= LONGEST_NAME => Ok(name),
            _ => Err(format!(
                "its name is not UTF-8 of at most {LONGEST_NAME} bytes"
            )),
        }
    }

    /// A value of the type with this number.
    ///
    /// # Errors
    /// No such type; a value that is not whole or cannot be.
    pub fn value(&mut self, kind: u32) -> Result<Value<'a>, String> {
        Ok(match kind {
            0 => Value::Whole(i128::from(self.word::<1>()?[0])),
            1 => Value::Whole(i128::from(i8::from_le_bytes(self.word()?))),
            2 => Value::Whole(i128::from(u16::from_le_bytes(self.word()?))),
            3 => Value::Whole(i128::from(i16::from_le_bytes(self.word()?))),
            4 => Value::Whole(i128::from(self.u32()?)),
            5 => Value::Whole(i128::from(i32::from_le_bytes(self.word()?))),
            6 => Value::Real(fewest_digits(f32::from_le_bytes(self.word()?))),
            7 => match self.word::<1>()?[0] {
                0 => Value::Yes(false),
                1 => Value::Yes(true),
                other => return Err(format!("{other} is neither true nor false")),
            },
            8 => Value::Text(self.text()?),
            9 => Value::List(self.list()?),
            10 => Value::Whole(i128::from(self.u64()?)),
            11 => Value::Whole(i128::from(i64::from_le_bytes(self.word()?))),
            12 => Value::Real(f64::from_le_bytes(self.word()?)),
            other => return Err(format!("{other} is no type of a value")),
        })
    }

    /// An array, which is walked through to find its end.
    fn list(&mut self) -> Result<List<'a>, String> {
        let (kind, count) = (self.u32()?, self.u64()?);
        let start = self.at;
        match kind {
            9 => return Err("a list of lists is not read".to_owned()),
            8 => {
                for index in 0..count {
                    self.text()
                        .map_err(|what| format!("text {index}: {what}"))?;
                }
            }
            _ => {
                let before = self.at;
                // One value tells the size of each.
                if count > 0 {
                    self.value(kind)?;
                }
                let size = (self.at - before) as u64;
                self.at = before;
                self.take(count.saturating_mul(size))?;
            }
        }
        Ok(List {
            kind,
            count,
            bytes: &self.bytes[start..self.at],
        })
    }
}

/// The float64 with the digits in which a float32 is written: 1e-5 and not 0.0000099999997.
fn fewest_digits(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
