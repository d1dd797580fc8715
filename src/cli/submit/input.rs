//! Takes commands out of a file one by one, as text: a JSON array, NDJSON, or one object over
//! several lines. What is no JSON is named with its line and does not stop the rest.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use serde::de::IgnoredAny;

/// The longest text that one command may have, in bytes: the largest `limits.body_max`.
const TEXT_MAX: usize = 10 << 20;

/// One command as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// JSON on one line, or why it is none.
    pub(super) text: Result<String, String>,
}

/// Reads items from `from`.
pub(super) struct Items<R> {
    from: R,
    line: u64,
    form: Option<Form>,
    /// Lines that were taken for the rest of a broken command.
    again: VecDeque<(u64, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Array,
    Ended,
}

impl<R: BufRead> Items<R> {
    /// Nothing is read before the first item is asked for.
    pub(super) fn new(from: R) -> Self {
        Items { from, line: 1, form: None, again: VecDeque::new() }
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        let form = match self.form {
            Some(form) => form,
            None => self.begin()?,
        };
        match form {
            Form::Lines => self.next_line(),
            Form::Array => self.next_element(),
            Form::Ended => Ok(None),
        }
    }

    /// Skips white space and a byte order mark; `[` begins an array.
    fn begin(&mut self) -> io::Result<Form> {
        let form = loop {
            match self.peek()? {
                None => break Form::Ended,
                Some(b'[') => {
                    self.from.consume(1);
                    break Form::Array;
                }
                Some(b) if b.is_ascii_whitespace() || matches!(b, 0xEF | 0xBB | 0xBF) => self.skip(b),
                Some(_) => break Form::Lines,
            }
        };
        self.form = Some(form);
        Ok(form)
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.from.fill_buf()?.first().copied())
    }

    fn skip(&mut self, b: u8) {
        self.from.consume(1);
        self.line += u64::from(b == b'\n');
    }

    fn read_line(&mut self) -> io::Result<Option<(u64, String)>> {
        if let Some(line) = self.again.pop_front() {
            return Ok(Some(line));
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(TEXT_MAX).unwrap_or(u64::MAX);
        if self.from.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let line = self.line;
        self.line += 1;
        Ok(Some((line, String::from_utf8_lossy(&bytes).into_owned())))
    }

    fn next_line(&mut self) -> io::Result<Option<Item>> {
        let mut lines: Vec<(u64, String)> = Vec::new();
        let mut text = String::new();
        loop {
            let Some((n, line)) = self.read_line()? else {
                let Some(&(line, _)) = lines.first() else { return Ok(None) };
                return Ok(Some(self.broken(line, lines, "the text ends within it")));
            };
            if lines.is_empty() && line.trim().is_empty() {
                continue;
            }
            text.push_str(&line);
            lines.push((n, line));
            let begin = lines[0].0;
            match serde_json::from_str::<IgnoredAny>(&text) {
                Ok(_) => return Ok(Some(Item { line: begin, text: Ok(one_line(&text)) })),
                Err(e) if e.is_eof() && text.len() < TEXT_MAX => {}
                Err(e) => return Ok(Some(self.broken(begin, lines, &e.to_string()))),
            }
        }
    }

    /// Gives up on the first of `lines`; the others are commands of their own again.
    fn broken(&mut self, line: u64, lines: Vec<(u64, String)>, why: &str) -> Item {
        for rest in lines.into_iter().skip(1).rev() {
            self.again.push_front(rest);
        }
        Item { line, text: Err(format!("not JSON: {why}")) }
    }

    fn next_element(&mut self) -> io::Result<Option<Item>> {
        while let Some(b) = self.peek()? {
            if !b.is_ascii_whitespace() && b != b',' {
                break;
            }
            self.skip(b);
        }
        let begin = self.line;
        let (mut bytes, mut scan) = (Vec::new(), Scan::default());
        loop {
            let Some(b) = self.peek()? else {
                self.form = Some(Form::Ended);
                let text = Err("not JSON: the array is not closed".to_owned());
                return Ok(Some(Item { line: begin, text }));
            };
            if scan.is_outside() && matches!(b, b',' | b']') {
                if b == b']' {
                    self.from.consume(1);
                    self.form = Some(Form::Ended);
                }
                break;
            }
            scan.step(b);
            self.skip(b);
            if bytes.len() < TEXT_MAX {
                bytes.push(b);
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if text.trim().is_empty() {
            return Ok(None);
        }
        let text = match serde_json::from_str::<IgnoredAny>(&text) {
            Ok(_) => Ok(one_line(&text)),
            Err(e) => Err(format!("not JSON: {e}")),
        };
        Ok(Some(Item { line: begin, text }))
    }
}

/// Where a byte stands: in a text, or so deep in brackets.
#[derive(Default)]
struct Scan {
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Scan {
    fn is_outside(&self) -> bool {
        self.depth == 0 && !self.quoted
    }

    fn step(&mut self, b: u8) {
        if self.escaped {
            self.escaped = false;
            return;
        }
        match b {
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            b'{' | b'[' if !self.quoted => self.depth += 1,
            b'}' | b']' if !self.quoted => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// JSON allows line breaks only between its tokens, so they may become spaces.
fn one_line(text: &str) -> String {
    text.trim().replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<(u64, Option<String>)> {
        let mut items = Items::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(item) = items.next().unwrap() {
            all.push((item.line, item.text.ok()));
        }
        all
    }

    fn good(line: u64, text: &str) -> (u64, Option<String>) {
        (line, Some(text.to_owned()))
    }

    #[test]
    fn lines_arrays_and_a_single_object_are_all_understood() {
        assert_eq!(items("{\"a\":1}\n\n{\"b\":2}"), [good(1, "{\"a\":1}"), good(3, "{\"b\":2}")]);
        assert_eq!(
            items(" [ {\"a\":\"],\\\"\"} ,\n{\"b\":[2]}\n]\n"),
            [good(1, "{\"a\":\"],\\\"\"}"), good(2, "{\"b\":[2]}")]
        );
        assert_eq!(items("\n{\n \"a\": 1\n}\n"), [good(2, "{  \"a\": 1 }")]);
        assert_eq!(items("\u{feff}{\"a\":1}"), [good(1, "{\"a\":1}")]);
        for nothing in ["", " \n", "[]", "[ ]"] {
            assert_eq!(items(nothing), [], "{nothing:?}");
        }
    }

    #[test]
    fn what_is_no_json_is_named_and_the_rest_goes_on() {
        assert_eq!(
            items("{\"a\":1}\n{\"b\":\n{\"c\":3}\n"),
            [good(1, "{\"a\":1}"), (2, None), good(3, "{\"c\":3}")]
        );
        assert_eq!(items("nonsense\n{\"c\":3}\n"), [(1, None), good(2, "{\"c\":3}")]);
        assert_eq!(
            items("[{\"a\":1},x,\n{\"c\":3}]"),
            [good(1, "{\"a\":1}"), (1, None), good(2, "{\"c\":3}")]
        );
        assert_eq!(items("[{\"a\":1}"), [(1, None)]);
    }
}
