//! How both sides are configured, and scripts of what happens to them.

use core::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use proptest::prelude::*;
use spop_proto::{Action, AgentConfig, Dialect, EngineConfig, Limits, Overload, Scope};

/// What an agent does with a NOTIFY.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Set,
    Nothing,
    FallBack,
    Defer,
    Forget,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Notify {
        bytes: usize,
        answer: Answer,
    },
    /// The next event of a stream whose last one has ended.
    Again {
        which: usize,
        answer: Answer,
    },
    /// That many bytes travel.
    ToAgent(usize),
    ToHaproxy(usize),
    /// A deferred NOTIFY is answered.
    Answer {
        which: usize,
    },
    Tick {
        ms: u64,
    },
    AgentLeaves,
    HaproxyLeaves,
    AgentCloses,
    HaproxyCloses,
    Cut,
}

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) dialect: Dialect,
    pub(crate) max_frame_size: u32,
    pub(crate) window: u32,
    pub(crate) pipelining: (bool, bool),
    pub(crate) fragmentation: bool,
    pub(crate) processing: u64,
    pub(crate) idle: Option<u64>,
    pub(crate) answer: u64,
    pub(crate) in_flight: u32,
    pub(crate) overload: Overload,
    pub(crate) payload: usize,
    pub(crate) output: usize,
}

impl Setup {
    pub(crate) fn engine(&self) -> EngineConfig {
        let ms = Duration::from_millis;
        let config = EngineConfig::new(self.dialect)
            .max_frame_size(self.max_frame_size)
            .and_then(|config| config.processing_timeout(ms(self.processing)))
            .unwrap()
            .window(NonZeroU32::new(self.window).unwrap())
            .pipelining(self.pipelining.0)
            .r#async(self.pipelining.0);
        match self.idle {
            Some(idle) => config.idle_timeout(Some(ms(idle))).unwrap(),
            None => config,
        }
    }

    pub(crate) fn agent(&self) -> AgentConfig {
        let limits = Limits::new()
            .answer_timeout(Duration::from_millis(self.answer))
            .unwrap()
            .in_flight(NonZeroU32::new(self.in_flight).unwrap())
            .overload(self.overload)
            .payload(NonZeroUsize::new(self.payload).unwrap())
            .output(NonZeroUsize::new(self.output).unwrap());
        AgentConfig::new()
            .pipelining(self.pipelining.1)
            .fragmentation(self.fragmentation)
            .fallback([Action::set(Scope::Transaction, "fallback", true)])
            .unwrap()
            .limits(limits)
    }
}

pub(crate) fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Set),
        1 => Just(Answer::Nothing),
        1 => Just(Answer::FallBack),
        4 => Just(Answer::Defer),
        1 => Just(Answer::Forget),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![4 => 0..40_usize, 2 => 150..1500_usize, 1 => 0..20_000_usize];
    let chunk = || prop_oneof![1 => 0..30_usize, 1 => 0..300_usize, 2 => Just(usize::MAX)];
    prop_oneof![
        80 => (bytes, answers()).prop_map(|(bytes, answer)| Step::Notify { bytes, answer }),
        40 => (0..50_usize, answers()).prop_map(|(which, answer)| Step::Again { which, answer }),
        120 => chunk().prop_map(Step::ToAgent),
        120 => chunk().prop_map(Step::ToHaproxy),
        60 => (0..50_usize).prop_map(|which| Step::Answer { which }),
        30 => (0..400_u64).prop_map(|ms| Step::Tick { ms }),
        1 => Just(Step::AgentLeaves),
        1 => Just(Step::HaproxyLeaves),
        1 => prop_oneof![Just(Step::AgentCloses), Just(Step::HaproxyCloses), Just(Step::Cut)],
    ]
}

pub(crate) fn setups() -> impl Strategy<Value = Setup> {
    let ms = || prop_oneof![Just(200_u64), Just(1000), Just(3000)];
    (
        prop_oneof![Just(Dialect::Old), Just(Dialect::New)],
        prop_oneof![Just(256_u32), Just(700), Just(16_380)],
        prop_oneof![1..4_u32, Just(20)],
        prop_oneof![3 => Just((true, true)), 1 => any::<(bool, bool)>()],
        prop_oneof![4 => Just(true), 1 => Just(false)],
        ms(),
        proptest::option::weighted(0.3, ms()),
        ms(),
        prop_oneof![Just(1_u32), Just(3), Just(1024)],
        prop_oneof![Just(Overload::Shed), Just(Overload::Wait)],
        prop_oneof![Just(400_usize), Just(1 << 20)],
        prop_oneof![Just(40_usize), Just(1 << 20)],
    )
        .prop_map(|all| Setup {
            dialect: all.0,
            max_frame_size: all.1,
            window: all.2,
            pipelining: all.3,
            fragmentation: all.4,
            processing: all.5,
            idle: all.6,
            answer: all.7,
            in_flight: all.8,
            overload: all.9,
            payload: all.10,
            output: all.11,
        })
}

pub(crate) fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}
