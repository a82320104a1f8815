//! Owns ports: what a stage takes and gives, as typed structs for the stage and as data for the engine.
//!
//! | port | a stage's input | a stage's output |
//! |---|---|---|
//! | `Each<K>` | one record's artifact; the stage runs once per record | one artifact per record |
//! | `All<K>` | every record's artifact, by record | not allowed |
//! | `One<K>` | the single artifact | the single artifact |
//!
//! An input may be optional: `Option<Each<K>>`.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use crate::{
    content::Content,
    error::StageError,
    kind::{Artifact, Kind, KindSpec},
    record::RecordId,
};

/// How many artifacts pass a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cardinality {
    /// One artifact a record; the stage runs once per record.
    Each,
    /// All records' artifacts at once.
    All,
    /// A single artifact.
    One,
}

/// A port as data.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Name in pipelines.
    pub name: &'static str,
    /// What passes, in a sentence.
    pub doc: &'static str,
    /// The kind of the artifacts.
    pub kind: KindSpec,
    /// How many.
    pub cardinality: Cardinality,
    /// An input that may stay unconnected.
    pub optional: bool,
}

/// What is on a port when a stage runs.
#[derive(Clone)]
pub enum PortValue {
    /// `Each` (of the record at hand) or `One`.
    Single(Artifact),
    /// As `Single`, of an output that was never in memory as a whole: its encoded bytes, see [`Each::encoded`].
    Encoded(Content),
    /// `All`.
    Many(BTreeMap<RecordId, Artifact>),
}

/// Artifacts by port name.
pub type PortValues = BTreeMap<&'static str, PortValue>;

/// One record's artifact. Dereferences to the value.
#[derive(Debug)]
pub struct Each<K>(Held<K>);

#[derive(Debug)]
enum Held<K> {
    Value(Arc<K>),
    /// Decoded when somebody asks for the value.
    Encoded(Content, OnceLock<Arc<K>>),
}

/// Every record's artifact, sorted by record.
#[derive(Debug)]
pub struct All<K>(BTreeMap<RecordId, Arc<K>>);

/// A single artifact. Dereferences to the value.
#[derive(Debug)]
pub struct One<K>(Arc<K>);

impl<K: Kind> Each<K> {
    /// Puts a value on the port.
    pub fn new(value: K) -> Self {
        Self(Held::Value(Arc::new(value)))
    }

    /// Puts an artifact on the port that was written piece by piece, so that it is never in memory as a whole. `content`
    /// must be what [`Kind::encode`] gives, to the byte; the writers of the kinds see to it.
    #[must_use]
    pub fn encoded(content: Content) -> Self {
        Self(Held::Encoded(content, OnceLock::new()))
    }

    /// The value, shared.
    #[must_use]
    pub fn share(&self) -> Arc<K> {
        Arc::clone(self.value())
    }

    fn value(&self) -> &Arc<K> {
        match &self.0 {
            Held::Value(value) => value,
            Held::Encoded(content, value) => {
                value.get_or_init(|| Arc::new(K::open(content).expect("the stage wrote it, and holds the file open")))
            }
        }
    }
}

impl<K> One<K> {
    /// Puts a value on the port.
    pub fn new(value: K) -> Self {
        Self(Arc::new(value))
    }

    /// The value, shared.
    #[must_use]
    pub fn share(&self) -> Arc<K> {
        Arc::clone(&self.0)
    }
}

impl<K> All<K> {
    /// Gathers values, for tests of a stage.
    #[must_use]
    pub fn new(values: BTreeMap<RecordId, Arc<K>>) -> Self {
        Self(values)
    }

    /// Records and values, sorted by record.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RecordId, &K)> {
        self.0.iter().map(|(record, value)| (record, &**value))
    }

    /// The value of one record.
    #[must_use]
    pub fn get(&self, record: &RecordId) -> Option<&K> {
        self.0.get(record).map(|value| &**value)
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is no record at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Kind> Deref for Each<K> {
    type Target = K;

    fn deref(&self) -> &K {
        self.value()
    }
}

impl<K> Deref for One<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.0
    }
}

/// A field of a ports struct. Implemented by [`Each`], [`All`], [`One`] and `Option` of them.
pub trait Port: Sized {
    /// The port as data.
    fn spec(name: &'static str, doc: &'static str) -> PortSpec;
    /// Out of the engine's hands.
    ///
    /// # Errors
    /// If the artifact is missing or of another kind: the plan was not checked.
    fn take(name: &'static str, value: Option<PortValue>) -> Result<Self, StageError>;
    /// Into the engine's hands; `None` for an unused optional port.
    fn give(self) -> Option<PortValue>;
}

/// All ports of one side of a stage; made by [`crate::ports!`].
pub trait Ports: Sized {
    /// The ports as data, in declaration order.
    fn specs() -> Vec<PortSpec>;
    /// Out of the engine's hands.
    ///
    /// # Errors
    /// If a port's artifact is missing or of another kind: the plan was not checked.
    fn take(values: PortValues) -> Result<Self, StageError>;
    /// Into the engine's hands.
    fn give(self) -> PortValues;
}

fn unfit(name: &str, kind: &str) -> StageError {
    StageError::new(format!("port `{name}` was not given {kind} (this is a defect of ecgpipe, not of the pipeline)"))
}

fn downcast<K: Kind>(name: &str, artifact: Artifact) -> Result<Arc<K>, StageError> {
    artifact.downcast::<K>().map_err(|_| unfit(name, K::NAME))
}

macro_rules! single_port {
    ($port:ident, $cardinality:expr, $hold:expr, $give:expr) => {
        impl<K: Kind> Port for $port<K> {
            fn spec(name: &'static str, doc: &'static str) -> PortSpec {
                let kind = KindSpec::of::<K>();
                PortSpec { name, doc: doc.trim_ascii(), kind, cardinality: $cardinality, optional: false }
            }

            fn take(name: &'static str, value: Option<PortValue>) -> Result<Self, StageError> {
                match value {
                    Some(PortValue::Single(artifact)) => Ok(Self($hold(downcast(name, artifact)?))),
                    _ => Err(unfit(name, K::NAME)),
                }
            }

            fn give(self) -> Option<PortValue> {
                Some($give(self.0))
            }
        }
    };
}

single_port!(Each, Cardinality::Each, Held::Value, |held: Held<K>| match held {
    Held::Value(value) => PortValue::Single(value),
    Held::Encoded(content, _) => PortValue::Encoded(content),
});
single_port!(One, Cardinality::One, |value| value, |value: Arc<K>| PortValue::Single(value));

impl<K: Kind> Port for All<K> {
    fn spec(name: &'static str, doc: &'static str) -> PortSpec {
        let kind = KindSpec::of::<K>();
        PortSpec { name, doc: doc.trim_ascii(), kind, cardinality: Cardinality::All, optional: false }
    }

    fn take(name: &'static str, value: Option<PortValue>) -> Result<Self, StageError> {
        let Some(PortValue::Many(artifacts)) = value else { return Err(unfit(name, K::NAME)) };
        let typed = artifacts.into_iter().map(|(record, artifact)| Ok((record, downcast(name, artifact)?)));
        typed.collect::<Result<_, StageError>>().map(Self)
    }

    fn give(self) -> Option<PortValue> {
        Some(PortValue::Many(self.0.into_iter().map(|(record, value)| (record, value as Artifact)).collect()))
    }
}

impl<P: Port> Port for Option<P> {
    fn spec(name: &'static str, doc: &'static str) -> PortSpec {
        PortSpec { optional: true, ..P::spec(name, doc) }
    }

    fn take(name: &'static str, value: Option<PortValue>) -> Result<Self, StageError> {
        value.map(|value| P::take(name, Some(value))).transpose()
    }

    fn give(self) -> Option<PortValue> {
        self.and_then(P::give)
    }
}

/// Declares the inputs or the outputs of a stage: a struct whose fields are ports. Doc comments become the catalogue.
///
/// ```
/// use ecgpipe_sdk::{Beats, Each, Signals, Windows, ports};
///
/// ports! {
///     /// What `window` takes.
///     pub struct Inputs {
///         /// The recording to cut from.
///         pub signals: Each<Signals>,
///         /// Where the beats are.
///         pub beats: Each<Beats>,
///     }
/// }
///
/// ports! {
///     /// What `window` gives.
///     pub struct Outputs {
///         /// One window a beat, in mV.
///         pub windows: Each<Windows>,
///     }
/// }
/// ```
#[macro_export]
macro_rules! ports {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident {
        $($(#[doc = $doc:literal])* $field_visibility:vis $field:ident : $port:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $visibility struct $name {
            $($(#[doc = $doc])* $field_visibility $field: $port,)*
        }

        impl $crate::Ports for $name {
            fn specs() -> Vec<$crate::PortSpec> {
                vec![$(<$port as $crate::Port>::spec(stringify!($field), concat!($($doc,)* "")),)*]
            }

            #[expect(unused_mut, unused_variables, clippy::allow_attributes, reason = "a struct without ports uses neither")]
            fn take(mut values: $crate::PortValues) -> Result<Self, $crate::StageError> {
                Ok(Self { $($field: <$port as $crate::Port>::take(stringify!($field), values.remove(stringify!($field)))?,)* })
            }

            fn give(self) -> $crate::PortValues {
                let ports = [$((stringify!($field), <$port as $crate::Port>::give(self.$field)),)*];
                ports.into_iter().filter_map(|(name, value): (&'static str, Option<$crate::PortValue>)| Some((name, value?))).collect()
            }
        }
    };
}

/// The inputs of a stage that takes none: a source.
#[derive(Debug)]
pub struct NoInputs;

impl Ports for NoInputs {
    fn specs() -> Vec<PortSpec> {
        Vec::new()
    }

    fn take(_: PortValues) -> Result<Self, StageError> {
        Ok(Self)
    }

    fn give(self) -> PortValues {
        PortValues::new()
    }
}
