//! Reads a predicate and checks it in one pass: what comes out has the types that evaluation needs.
//!
//! ```text
//! any     = all { "||" all }
//! all     = compare { "&&" compare }
//! compare = unary [ ( "==" | "!=" ) unary ]
//! unary   = "!" unary | primary
//! primary = text | "true" | "false" | "(" any ")" | path [ "[" any "]" ] | path "(" [ any { "," any } ] ")"
//! path    = word { "." word }
//! ```

use super::{
    DEPTH_MAX, NODES_MAX, PREDICATE_BYTES_MAX,
    ast::{List, Path, Test, Text},
    error::{PredicateError, PredicateProblem, nearest_of},
    functions::{self, Arguments, FUNCTIONS},
    lexer::{Kind, Lexer, Token},
    schema::{FieldType, Schema},
};

/// A value whose type is known.
#[derive(Clone, Debug)]
pub(super) enum Typed {
    Labels(Path),
    List(List),
    Test(Test),
    Text(Text),
    Traits(Path),
}

impl Typed {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Labels(_) => "all labels",
            Self::List(_) => "a list",
            Self::Test(_) => "a condition",
            Self::Text(_) => "a text",
            Self::Traits(_) => "all traits",
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) offset: usize,
    pub(super) typed: Typed,
}

/// Reads a condition.
pub(super) fn test(schema: &'static Schema, source: &str) -> Result<Test, PredicateError> {
    let mut parser = Parser::new(schema, source)?;
    let operand = parser.whole()?;
    parser.condition(operand)
}

/// Reads an expression that gives texts.
pub(super) fn list(schema: &'static Schema, source: &str) -> Result<List, PredicateError> {
    let mut parser = Parser::new(schema, source)?;
    let operand = parser.whole()?;
    parser.list(operand)
}

/// The state of one reading: one token ahead, and what was spent of the bounds.
pub(super) struct Parser<'s> {
    pub(super) schema: &'static Schema,
    source: &'s str,
    lexer: Lexer<'s>,
    ahead: Token,
    depth: usize,
    nodes: usize,
    pub(super) patterns: usize,
}

impl<'s> Parser<'s> {
    fn new(schema: &'static Schema, source: &'s str) -> Result<Self, PredicateError> {
        if source.len() > PREDICATE_BYTES_MAX {
            let problem = PredicateProblem::TooLong;
            return Err(PredicateError::new(source, 0, problem));
        }
        let mut lexer = Lexer::new(source);
        let ahead = lexer.next()?;
        Ok(Self {
            schema,
            source,
            lexer,
            ahead,
            depth: 0,
            nodes: 0,
            patterns: 0,
        })
    }

    fn whole(&mut self) -> Result<Operand, PredicateError> {
        let operand = self.any()?;
        match self.ahead.kind {
            Kind::End => Ok(operand),
            _ => Err(self.unexpected("`&&`, `||` or the end")),
        }
    }

    fn any(&mut self) -> Result<Operand, PredicateError> {
        self.deeper(|parser| parser.chain(&Kind::Or, Self::all, Test::Any))
    }

    fn all(&mut self) -> Result<Operand, PredicateError> {
        self.chain(&Kind::And, Self::compare, Test::All)
    }

    /// One or more of `part` with `operator` between them.
    fn chain(
        &mut self,
        operator: &Kind,
        part: fn(&mut Self) -> Result<Operand, PredicateError>,
        join: fn(Vec<Test>) -> Test,
    ) -> Result<Operand, PredicateError> {
        let first = part(self)?;
        if self.ahead.kind != *operator {
            return Ok(first);
        }
        let offset = first.offset;
        let mut tests = vec![self.condition(first)?];
        while self.ahead.kind == *operator {
            self.advance()?;
            self.node(offset)?;
            let next = part(self)?;
            tests.push(self.condition(next)?);
        }
        Ok(Operand {
            offset,
            typed: Typed::Test(join(tests)),
        })
    }

    fn compare(&mut self) -> Result<Operand, PredicateError> {
        let left = self.unary()?;
        let equal = match self.ahead.kind {
            Kind::Equals => true,
            Kind::Differs => false,
            _ => return Ok(left),
        };
        self.advance()?;
        let offset = left.offset;
        self.node(offset)?;
        let left = self.compared(left)?;
        let right = self.unary()?;
        let right = self.compared(right)?;
        Ok(Operand {
            offset,
            typed: Typed::Test(Test::Same { left, right, equal }),
        })
    }

    fn unary(&mut self) -> Result<Operand, PredicateError> {
        let offset = self.ahead.offset;
        if self.ahead.kind != Kind::Not {
            return self.primary();
        }
        self.advance()?;
        self.node(offset)?;
        let operand = self.deeper(Self::unary)?;
        let test = self.condition(operand)?;
        Ok(Operand {
            offset,
            typed: Typed::Test(Test::Not(Box::new(test))),
        })
    }

    fn primary(&mut self) -> Result<Operand, PredicateError> {
        let Token { offset, kind } = self.advance()?;
        self.node(offset)?;
        match kind {
            Kind::Text(text) => Ok(Operand {
                offset,
                typed: Typed::Text(Text::Literal(text)),
            }),
            Kind::OpenParen => {
                let inner = self.any()?;
                self.expect(&Kind::CloseParen, "`)`")?;
                Ok(Operand { offset, ..inner })
            }
            Kind::Word(word) => self.named(offset, word),
            found => Err(self.expected(
                offset,
                "a field, a function, a text in double quotes or `(`",
                &found,
            )),
        }
    }

    /// A name: a field, perhaps with a key, or a call.
    fn named(&mut self, offset: usize, mut name: String) -> Result<Operand, PredicateError> {
        while self.ahead.kind == Kind::Dot {
            self.advance()?;
            match self.advance()? {
                Token {
                    kind: Kind::Word(word),
                    ..
                } => {
                    name.push('.');
                    name.push_str(&word);
                }
                Token { offset, kind } => {
                    return Err(self.expected(offset, "a name after the dot", &kind));
                }
            }
        }
        let typed = if self.ahead.kind == Kind::OpenParen {
            self.call(offset, &name)?
        } else {
            match name.as_str() {
                "true" => Typed::Test(Test::Always(true)),
                "false" => Typed::Test(Test::Always(false)),
                _ => self.field(offset, &name)?,
            }
        };
        if self.ahead.kind == Kind::OpenBracket {
            return self.keyed(offset, typed);
        }
        Ok(Operand { offset, typed })
    }

    fn call(&mut self, offset: usize, name: &str) -> Result<Typed, PredicateError> {
        let Some(function) = functions::named(name) else {
            let names = FUNCTIONS.iter().map(|function| function.name);
            let problem = PredicateProblem::UnknownFunction {
                name: name.to_owned(),
                nearest: nearest_of(name, names),
            };
            return Err(self.error(offset, problem));
        };
        self.advance()?;
        let mut values = Vec::new();
        while self.ahead.kind != Kind::CloseParen {
            if !values.is_empty() {
                self.expect(&Kind::Comma, "`,` or `)`")?;
            }
            values.push(self.any()?);
        }
        let end = self.ahead.offset;
        self.advance()?;
        functions::count(function, values.len()).map_err(|problem| self.error(offset, problem))?;
        (function.build)(self, Arguments::new(offset, values, end))
    }

    /// A field by its name, or a key of labels or traits written with a dot.
    fn field(&self, offset: usize, name: &str) -> Result<Typed, PredicateError> {
        if let Some(field) = self.schema.field(name) {
            let path = field.path;
            return Ok(match field.holds {
                FieldType::Flag => Typed::Test(Test::Flag(path)),
                FieldType::Labels => Typed::Labels(path),
                FieldType::List => Typed::List(List::Field(path)),
                FieldType::Number | FieldType::Text => Typed::Text(Text::Field(path)),
                FieldType::Traits => Typed::Traits(path),
            });
        }
        if let Some((map, key)) = name.rsplit_once('.')
            && let Some(field) = self.schema.field(map)
        {
            let key = Text::Literal(key.to_owned());
            match field.holds {
                FieldType::Labels => {
                    return Ok(Typed::Text(Text::Label(field.path, Box::new(key))));
                }
                FieldType::Traits => return Ok(Typed::List(List::Trait(field.path, key))),
                FieldType::Flag | FieldType::List | FieldType::Number | FieldType::Text => {}
            }
        }
        let fields: Vec<_> = self.schema.iter().collect();
        let names = fields
            .iter()
            .flat_map(|field| std::iter::once(field.path).chain(field.also.iter().copied()));
        let problem = PredicateProblem::UnknownField {
            name: name.to_owned(),
            kind: self.schema.kind,
            nearest: nearest_of(name, names),
        };
        Err(self.error(offset, problem))
    }

    fn keyed(&mut self, offset: usize, map: Typed) -> Result<Operand, PredicateError> {
        self.advance()?;
        let key = self.any()?;
        let key = self.text(key)?;
        self.expect(&Kind::CloseBracket, "`]`")?;
        let typed = match map {
            Typed::Labels(path) => Typed::Text(Text::Label(path, Box::new(key))),
            Typed::Traits(path) => Typed::List(List::Trait(path, key)),
            other => return Err(self.wrong_type(offset, "labels or traits before `[`", &other)),
        };
        Ok(Operand { offset, typed })
    }

    fn advance(&mut self) -> Result<Token, PredicateError> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.ahead, next))
    }

    fn expect(&mut self, kind: &Kind, expected: &str) -> Result<(), PredicateError> {
        if self.ahead.kind == *kind {
            self.advance().map(|_| ())
        } else {
            Err(self.unexpected(expected))
        }
    }

    fn unexpected(&self, expected: &str) -> PredicateError {
        self.expected(self.ahead.offset, expected, &self.ahead.kind)
    }

    fn expected(&self, offset: usize, expected: &str, found: &Kind) -> PredicateError {
        let problem = PredicateProblem::Expected {
            expected: expected.to_owned(),
            found: found.describe(),
        };
        self.error(offset, problem)
    }

    pub(super) fn error(&self, offset: usize, problem: PredicateProblem) -> PredicateError {
        PredicateError::new(self.source, offset, problem)
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, PredicateError>,
    ) -> Result<T, PredicateError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.error(self.ahead.offset, PredicateProblem::TooDeep));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn node(&mut self, offset: usize) -> Result<(), PredicateError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.error(offset, PredicateProblem::TooManyNodes));
        }
        Ok(())
    }
}
