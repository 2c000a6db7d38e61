//! Recursive descent over the filter text.
//!
//! Bounds come first: length before anything is read, depth and counts while reading. JSON values are read by
//! `serde_json`, whose error positions are turned into offsets of the whole text.

use serde_json::Value;

use super::fields::{Field, FieldType, Operator, Subject};
use super::{
    DEPTH_MAX, Expr, FILTER_BYTES_MAX, Filter, FilterError, FilterTime, LIST_ENTRIES_MAX, PREDICATES_MAX, Phrase,
    Predicate, Test, WORDS_MAX,
};

type Result<T> = std::result::Result<T, FilterError>;

pub(super) fn parse(text: &str, subject: Subject) -> Result<Filter> {
    if text.len() > FILTER_BYTES_MAX {
        let message = format!("the text has {} bytes, at most {FILTER_BYTES_MAX} are allowed", text.len());
        return Err(FilterError::new(FILTER_BYTES_MAX, message));
    }
    let mut parser = Parser { text, at: 0, depth: 0, predicates: 0, words: 0, subject };
    parser.skip_blanks();
    if parser.peek().is_none() {
        return Ok(Filter::ALL);
    }
    let root = parser.or()?;
    match parser.peek() {
        None => Ok(Filter { root: Some(root) }),
        Some(b')') => Err(parser.fault("a parenthesis closes that was never opened")),
        Some(_) => Err(parser.fault("expected ',' or '|' or the end")),
    }
}

/// A value as given, with the text it was given as.
struct Given {
    value: Value,
    source: String,
    at: usize,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    predicates: usize,
    words: usize,
    subject: Subject,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    fn fault(&self, message: impl Into<String>) -> FilterError {
        FilterError::new(self.at, message)
    }

    fn or(&mut self) -> Result<Expr> {
        self.joined(b'|', Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Expr> {
        self.joined(b',', Self::term, Expr::And)
    }

    fn joined(&mut self, by: u8, part: fn(&mut Self) -> Result<Expr>, join: fn(Vec<Expr>) -> Expr) -> Result<Expr> {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.peek() == Some(by) {
            self.at += 1;
            parts.push(part(self)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { join(parts) })
    }

    fn term(&mut self) -> Result<Expr> {
        self.skip_blanks();
        if self.peek() != Some(b'(') {
            let predicate = self.predicate()?;
            self.skip_blanks();
            return Ok(predicate);
        }
        if self.depth == DEPTH_MAX {
            return Err(self.fault(format!("parentheses nest deeper than {DEPTH_MAX}")));
        }
        let opened = self.at;
        self.at += 1;
        self.depth += 1;
        let inner = self.or()?;
        if self.peek() != Some(b')') {
            return Err(self.fault(format!("expected ')' for the parenthesis at offset {opened}")));
        }
        self.at += 1;
        self.depth -= 1;
        self.skip_blanks();
        Ok(inner)
    }

    fn predicate(&mut self) -> Result<Expr> {
        let at = self.at;
        let name = if self.peek() == Some(b'"') { self.json_text()? } else { self.bare(true)?.0 };
        let field = Field::from_name(&name, self.subject, at)?;
        let separated = self.peek().is_some_and(is_blank);
        self.skip_blanks();
        if self.peek() == Some(b':') {
            self.at += 1;
            self.skip_blanks();
            return self.older_notation(field, at);
        }
        let operator_at = self.at;
        let operator = self.operator()?;
        if !separated {
            return Err(FilterError::new(operator_at, "expected a blank between field and operator"));
        }
        self.skip_blanks();
        let given = self.value()?;
        Ok(Expr::Is(self.checked(field, at, operator, operator_at, given, false)?))
    }

    fn operator(&mut self) -> Result<Operator> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| c.is_ascii() && (is_blank(c as u8) || ",|()".contains(c))).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() {
            return Err(self.fault("expected an operator"));
        }
        let Some(operator) = Operator::from_name(name) else {
            let shown: String = name.chars().take(40).collect();
            return Err(self.fault(format!("unknown operator {shown:?}")));
        };
        self.at += end;
        Ok(operator)
    }

    /// `{"operator": value, ...}`, all of which must hold, or a plain value, which means equals.
    fn older_notation(&mut self, field: Field, at: usize) -> Result<Expr> {
        if !matches!(self.peek(), Some(b'{' | b'[' | b'"')) {
            return Err(self.fault("expected a JSON object, list or text"));
        }
        let given = self.json()?;
        let value_at = given.at;
        let Value::Object(operators) = given.value else {
            return Ok(Expr::Is(self.checked(field, at, Operator::Equals, value_at, given, true)?));
        };
        let mut parts = Vec::with_capacity(operators.len());
        for (name, value) in operators {
            let Some(operator) = Operator::from_name(&name) else {
                return Err(FilterError::new(
                    value_at,
                    format!("unknown operator {:?}", name.chars().take(40).collect::<String>()),
                ));
            };
            let given = Given { source: value.to_string(), value, at: value_at };
            parts.push(Expr::Is(self.checked(field.clone(), at, operator, value_at, given, true)?));
        }
        match parts.len() {
            0 => Err(FilterError::new(value_at, "expected an operator")),
            1 => Ok(parts.swap_remove(0)),
            _ => Ok(Expr::And(parts)),
        }
    }

    fn value(&mut self) -> Result<Given> {
        match self.peek() {
            Some(b'"' | b'[' | b'{') => {
                let given = self.json()?;
                match self.peek() {
                    None | Some(b',' | b'|' | b')') => Ok(given),
                    Some(byte) if is_blank(byte) => Ok(given),
                    Some(_) => Err(self.fault("expected ',' or '|' or the end after the value")),
                }
            }
            _ => {
                let at = self.at;
                let (source, escaped) = self.bare(false)?;
                if source.is_empty() {
                    return Err(self.fault("expected a value"));
                }
                let value = if escaped { Value::String(source.clone()) } else { bare_value(&source, at)? };
                Ok(Given { value, source, at })
            }
        }
    }

    /// A bare token, unescaped, and whether it held a backslash. A field ends at a `:` that begins the older notation.
    fn bare(&mut self, is_field: bool) -> Result<(String, bool)> {
        let mut out = String::new();
        let mut escaped = false;
        while let Some(c) = self.text[self.at..].chars().next() {
            match c {
                '!' => return Err(self.fault("'!' is reserved: write \\! for the character itself")),
                ',' | '|' | '(' | ')' | ' ' | '\t' | '\r' | '\n' => break,
                ':' if is_field && self.begins_older_notation() => break,
                '\\' => {
                    let Some(next) = self.text[self.at + 1..].chars().next() else {
                        return Err(self.fault("expected a character after the backslash"));
                    };
                    out.push(next);
                    self.at += 1 + next.len_utf8();
                    escaped = true;
                    continue;
                }
                c => out.push(c),
            }
            self.at += c.len_utf8();
        }
        if is_field && out.is_empty() {
            return Err(self.fault("expected a field"));
        }
        Ok((out, escaped))
    }

    fn begins_older_notation(&self) -> bool {
        let rest = self.text.as_bytes()[self.at + 1..].iter();
        rest.copied().find(|byte| !is_blank(*byte)).is_some_and(|byte| matches!(byte, b'{' | b'[' | b'"'))
    }

    fn json_text(&mut self) -> Result<String> {
        match self.json()?.value {
            Value::String(text) => Ok(text),
            _ => Err(self.fault("expected a quoted text")),
        }
    }

    fn json(&mut self) -> Result<Given> {
        let start = self.at;
        let rest = &self.text[start..];
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let value = match stream.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                let line_start: usize =
                    rest.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
                let offset = (start + line_start + error.column().saturating_sub(1)).min(self.text.len());
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default().to_owned();
                let message =
                    if error.is_eof() { "the JSON value does not end".to_owned() } else { format!("JSON: {what}") };
                return Err(FilterError::new(if error.is_eof() { self.text.len() } else { offset }, message));
            }
            None => return Err(self.fault("expected a value")),
        };
        let length = stream.byte_offset();
        check_json(&value, 1, start)?;
        self.at = start + length;
        Ok(Given { value, source: rest[..length].to_owned(), at: start })
    }

    /// Applies the operator table and the types of the field.
    fn checked(
        &mut self,
        field: Field,
        at: usize,
        operator: Operator,
        operator_at: usize,
        given: Given,
        older_notation: bool,
    ) -> Result<Predicate> {
        self.predicates += 1;
        if self.predicates > PREDICATES_MAX {
            return Err(FilterError::new(at, format!("more than {PREDICATES_MAX} predicates")));
        }
        if !field.operators().contains(&operator) {
            let allowed: Vec<_> = field.operators().iter().map(|operator| operator.name()).collect();
            let message =
                format!("operator {} does not apply here, expected one of {}", operator.name(), allowed.join(", "));
            return Err(FilterError::new(operator_at, message));
        }
        let test = match operator {
            Operator::Exists => match given.value {
                Value::Bool(wanted) => Test::Exists(wanted),
                _ => return Err(FilterError::new(given.at, "expected true or false")),
            },
            Operator::Before => Test::Before(date(&given)?),
            Operator::After => Test::After(date(&given)?),
            Operator::StartsWith => match text(&given.value, &given.source, given.at)? {
                Value::String(text) => Test::StartsWith(text),
                _ => return Err(FilterError::new(given.at, "expected a text")),
            },
            Operator::AnyOf => Test::AnyOf(list(field.field_type(), given)?),
            Operator::Contains => Test::Contains(list(field.field_type(), given)?),
            Operator::NotEquals => Test::NotEquals(single(field.field_type(), given)?),
            Operator::Equals => match field.field_type() {
                FieldType::FullText => Test::Words(self.texts_of_words(given)?),
                FieldType::TextList => Test::Equals(Value::Array(list(FieldType::TextList, given)?)),
                FieldType::Text if older_notation && given.value.is_array() => {
                    Test::EqualsOneOf(list(FieldType::Text, given)?)
                }
                field_type => Test::Equals(single(field_type, given)?),
            },
        };
        Ok(Predicate { field, test, at })
    }

    fn texts_of_words(&mut self, given: Given) -> Result<Vec<Phrase>> {
        let at = given.at;
        let mut texts = Vec::new();
        for entry in list(FieldType::FullText, given)? {
            let phrase = Phrase::new(entry.as_str().unwrap_or_default());
            self.words += phrase.words.len();
            texts.push(phrase);
        }
        if self.words > WORDS_MAX {
            let message = format!("{} words are to be found, at most {WORDS_MAX} are allowed", self.words);
            return Err(FilterError::new(at, message));
        }
        Ok(texts)
    }
}

/// A whole bare token: JSON if it is a number, `true` or `false`, else text.
fn bare_value(source: &str, at: usize) -> Result<Value> {
    match source {
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        "null" => return Err(FilterError::new(at, "null is no value: use exists false")),
        _ => {}
    }
    if !is_json_number(source.as_bytes()) {
        return Ok(Value::String(source.to_owned()));
    }
    serde_json::from_str(source).map_err(|_| FilterError::new(at, "the number is out of range"))
}

fn is_json_number(source: &[u8]) -> bool {
    fn digits(source: &[u8]) -> (usize, &[u8]) {
        let count = source.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count, &source[count..])
    }
    let unsigned = source.strip_prefix(b"-").unwrap_or(source);
    let (whole, mut rest) = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned[0] == b'0') {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (count, after) = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let unsigned = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let (count, after) = digits(unsigned);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

fn check_json(value: &Value, depth: usize, at: usize) -> Result<()> {
    match value {
        Value::Null => Err(FilterError::new(at, "null is no value: use exists false")),
        Value::Array(_) | Value::Object(_) if depth > DEPTH_MAX => {
            Err(FilterError::new(at, format!("the JSON value nests deeper than {DEPTH_MAX}")))
        }
        Value::Array(entries) if entries.len() > LIST_ENTRIES_MAX => {
            let message = format!("the list has {} entries, at most {LIST_ENTRIES_MAX} are allowed", entries.len());
            Err(FilterError::new(at, message))
        }
        Value::Array(entries) => entries.iter().try_for_each(|entry| check_json(entry, depth + 1, at)),
        Value::Object(members) => members.values().try_for_each(|member| check_json(member, depth + 1, at)),
        _ => Ok(()),
    }
}

/// A text, or a number taken as the text it was given as.
fn text(value: &Value, source: &str, at: usize) -> Result<Value> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Number(_) => Ok(Value::String(source.to_owned())),
        _ => Err(FilterError::new(at, "expected a text")),
    }
}

fn single(field_type: FieldType, given: Given) -> Result<Value> {
    if field_type == FieldType::Any { Ok(given.value) } else { text(&given.value, &given.source, given.at) }
}

/// The entries of a list; a single value is a list of one.
fn list(field_type: FieldType, given: Given) -> Result<Vec<Value>> {
    match given.value {
        Value::Array(entries) if field_type == FieldType::Any => Ok(entries),
        Value::Array(entries) => entries.iter().map(|entry| text(entry, &entry.to_string(), given.at)).collect(),
        _ => Ok(vec![single(field_type, given)?]),
    }
}

fn date(given: &Given) -> Result<FilterTime> {
    FilterTime::read(&given.value)
        .ok_or_else(|| FilterError::new(given.at, "expected a date: epoch milliseconds or RFC 3339 text"))
}
