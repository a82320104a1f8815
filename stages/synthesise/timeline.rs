//! Owns when things happen in an invented heart: beats, P waves, pacemaker spikes and changes of rhythm, in seconds.
//! Knows nothing of leads and samples.
//!
//! The sinus node's cycle varies as in ECGSYN: its power spectrum has one peak at 0.1 Hz (blood pressure) and one at
//! the frequency of breathing, and a slow part below 0.04 Hz. The series is a sum of sinusoids with random phases
//! under that spectrum, which can be asked for any time. What an early beat does to the sinus node follows the rules by
//! which a reader tells it: an atrial one resets the node (the pause is shorter than compensatory), a ventricular one
//! does not (a fully compensatory pause; the blocked P wave is there, in the wide beat's ST segment), and a pacemaker
//! waits for its escape interval.

use std::f64::consts::TAU;

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::patient::{Conduction, Episode, Pacing, Patient};

/// How the ventricles were excited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Origin {
    /// Through the conduction system.
    Conducted,
    /// From the ventricular focus of that number.
    Ectopic(usize),
    /// From the focus and through the conduction system at once; this share of it from the focus.
    Fusion(usize, f64),
    /// From the pacemaker.
    Paced,
    /// From the pacemaker and through the conduction system at once; this share of it from the pacemaker.
    PacedFusion(f64),
}

/// One beat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// Time zero of its waves.
    pub(super) at_s: f64,
    /// The cycle that its repolarisation has adapted to.
    pub(super) cycle_s: f64,
    /// Height relative to the patient's shape.
    pub(super) gain: f64,
    /// Width relative to the patient's shape.
    pub(super) stretch: f64,
    /// How the ventricles were excited.
    pub(super) origin: Origin,
    /// The WFDB symbol of its annotation.
    pub(super) symbol: &'static str,
}

/// One P wave.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtrialWave {
    /// Time zero of its waves.
    pub(super) at_s: f64,
    /// Whether it comes from the ectopic focus.
    pub(super) is_ectopic: bool,
}

/// A change of rhythm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// When it begins.
    pub(super) at_s: f64,
    /// Its name as in the MIT-BIH database, for example `(N`.
    pub(super) name: &'static str,
}

/// All that happens in one recording, beats and rhythms in time order.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    /// Beats, some of them behind the end of the recording.
    pub(super) beats: Vec<Beat>,
    /// P waves in no particular order.
    pub(super) atrial_waves: Vec<AtrialWave>,
    /// Pacemaker spikes.
    pub(super) spikes_s: Vec<f64>,
    /// Changes of rhythm; the first at 0.
    pub(super) rhythms: Vec<Rhythm>,
}

/// Shares of a patient's beats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// Premature atrial beats of a patient whose role has all of them.
    pub(super) atrial: f64,
    /// Premature ventricular beats, likewise.
    pub(super) ventricular: f64,
    /// Fusion beats, likewise.
    pub(super) fusion: f64,
    /// Paced beats of a patient with a pacemaker.
    pub(super) paced: f64,
}

/// Lets a heart beat for `duration_s`.
pub(super) fn live(patient: &Patient, shares: Shares, duration_s: f64, rng: &mut Xoshiro256PlusPlus) -> Timeline {
    let tachogram = Tachogram::draw(patient, rng);
    let mut heart = Heart { patient, tachogram, rng, timeline: Timeline::default(), node_s: 0.0, beat_s: 0.0 };
    match patient.role.pacing {
        None => heart.live_by_sinus(shares, duration_s),
        Some(pacing) => heart.live_by_pacemaker(pacing, shares, duration_s),
    }
    heart.timeline
}

/// A wave needs room before the next beat's label.
const LABEL_LEAD_S: f64 = 0.12;
/// Shortest coupling of an early beat: the ventricles are refractory before.
const REFRACTORY_S: f64 = 0.42;

/// The variation of the cycle over time.
struct Tachogram {
    /// Frequency in Hz, amplitude relative to the cycle, phase.
    sinusoids: Vec<(f64, f64, f64)>,
}

impl Tachogram {
    fn draw(patient: &Patient, rng: &mut Xoshiro256PlusPlus) -> Self {
        const SINUSOIDS_A_PEAK: usize = 5;
        let peaks = [
            // Centre, width (both as in ECGSYN's default, 0.01 Hz) and standard deviation.
            (0.1, 0.01, patient.pressure_variability),
            (patient.breathing_hz, 0.01, patient.breathing_variability),
            (0.015, 0.006, 0.012),
        ];
        let mut sinusoids = Vec::new();
        for (centre_hz, width_hz, deviation) in peaks {
            for _ in 0..SINUSOIDS_A_PEAK {
                let normal: f64 = StandardNormal.sample(rng);
                let hz = centre_hz + width_hz * normal.clamp(-2.0, 2.0);
                sinusoids.push((hz, deviation * (2.0 / SINUSOIDS_A_PEAK as f64).sqrt(), rng.random_range(0.0..TAU)));
            }
        }
        Self { sinusoids }
    }

    /// The cycle at a time, relative to its mean.
    fn relative_cycle(&self, at_s: f64) -> f64 {
        let sum: f64 = self.sinusoids.iter().map(|(hz, height, phase)| height * (TAU * hz * at_s + phase).sin()).sum();
        1.0 + sum.clamp(-0.25, 0.25)
    }
}

struct Heart<'a> {
    patient: &'a Patient,
    tachogram: Tachogram,
    rng: &'a mut Xoshiro256PlusPlus,
    timeline: Timeline,
    /// When the sinus node's last beat reached the ventricles.
    node_s: f64,
    /// The last beat of any origin.
    beat_s: f64,
}

impl Heart<'_> {
    fn cycle_s(&self) -> f64 {
        self.patient.cycle_s * self.tachogram.relative_cycle(self.node_s)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.rng.random_range(low..high)
    }

    fn beat(&mut self, at_s: f64, origin: Origin, symbol: &'static str) {
        let mut normal = || {
            let normal: f64 = StandardNormal.sample(self.rng);
            normal.clamp(-2.5, 2.5)
        };
        // An ectopic beat repeats itself less exactly than one that runs through the conduction system.
        let deviation = match origin {
            Origin::Conducted | Origin::Paced => 0.02,
            Origin::Ectopic(_) | Origin::Fusion(..) | Origin::PacedFusion(_) => 0.05,
        };
        let (gain, stretch) = (1.0 + deviation * normal(), 1.0 + 0.6 * deviation * normal());
        // Repolarisation follows the cycle slowly: an early beat changes it little.
        let last_cycle_s = (at_s - self.beat_s).clamp(0.4, 1.6);
        let cycle_s = 0.75 * self.patient.cycle_s + 0.25 * last_cycle_s;
        self.timeline.beats.push(Beat { at_s, cycle_s, gain, stretch, origin, symbol });
        self.beat_s = at_s;
    }

    fn p_wave(&mut self, at_s: f64) {
        self.timeline.atrial_waves.push(AtrialWave { at_s, is_ectopic: false });
    }

    fn sinus_beat(&mut self, at_s: f64) {
        let symbol = match self.patient.role.conduction {
            Conduction::Normal => "N",
            Conduction::LeftBlock => "L",
            Conduction::RightBlock => "R",
        };
        self.p_wave(at_s - self.patient.pr_s);
        self.beat(at_s, Origin::Conducted, symbol);
        self.node_s = at_s;
    }

    fn rhythm(&mut self, at_s: f64, name: &'static str) {
        self.timeline.rhythms.push(Rhythm { at_s, name });
    }

    fn live_by_sinus(&mut self, shares: Shares, duration_s: f64) {
        let chances = Chances::new(self.patient, shares);
        self.rhythm(0.0, "(N");
        let first_s = self.between(0.2, 0.9) * self.patient.cycle_s;
        self.sinus_beat(first_s);
        while self.beat_s < duration_s + 1.0 {
            let draw = self.between(0.0, 1.0);
            if draw < chances.atrial {
                self.atrial_beat();
            } else if draw < chances.atrial + chances.fusion {
                self.fusion_beat();
            } else if draw < chances.atrial + chances.fusion + chances.ventricular {
                let episode = chances.pick_episode(self.patient.role.episodes, self.rng);
                self.ventricular_episode(episode);
            } else {
                let next_s = self.node_s + self.cycle_s();
                self.sinus_beat(next_s);
            }
        }
    }

    /// Where an early beat falls, as a share of the cycle between the two.
    fn early_s(&mut self, low: f64, high: f64) -> f64 {
        let cycle_s = self.cycle_s();
        let coupling_s = cycle_s * self.between(low, high);
        self.node_s + coupling_s.max(REFRACTORY_S).min(0.86 * cycle_s)
    }

    fn atrial_beat(&mut self) {
        let at_s = self.early_s(0.56, 0.8);
        let pr_s = self.patient.pr_s * self.between(0.75, 1.05);
        self.timeline.atrial_waves.push(AtrialWave { at_s: at_s - pr_s, is_ectopic: true });
        self.beat(at_s, Origin::Conducted, "A");
        self.node_s = at_s;
        let pause_s = self.cycle_s() * self.between(1.02, 1.18);
        self.sinus_beat(at_s + pause_s);
    }

    fn fusion_beat(&mut self) {
        let cycle_s = self.cycle_s();
        let (focus, tick_s) = (self.pick_focus(), self.node_s + cycle_s);
        let (ahead_s, share) = (self.between(0.0, 0.035), self.between(0.35, 0.55));
        self.p_wave(tick_s - self.patient.pr_s);
        self.beat(tick_s - ahead_s, Origin::Fusion(focus, share), "F");
        self.sinus_beat(tick_s + cycle_s);
    }

    fn ventricular_episode(&mut self, episode: Episode) {
        let repeat_n = self.rng.random_range(episode.repeat_n.0..=episode.repeat_n.1);
        for repeat in 0..repeat_n {
            let focus = self.pick_focus();
            let first_s = self.early_s(0.55, 0.75);
            if repeat == 0 && !episode.rhythm.is_empty() {
                self.rhythm(first_s - LABEL_LEAD_S, episode.rhythm);
            }
            self.beat(first_s, Origin::Ectopic(focus), "V");
            for _ in 1..episode.run_n {
                let next_s = self.beat_s + self.between(0.38, 0.5).min(0.85 * self.patient.cycle_s);
                self.beat(next_s, Origin::Ectopic(focus), "V");
            }
            self.resume();
            for _ in 1..episode.sinus_n {
                let next_s = self.node_s + self.cycle_s();
                self.sinus_beat(next_s);
            }
        }
        if !episode.rhythm.is_empty() {
            self.rhythm(self.beat_s - LABEL_LEAD_S, "(N");
        }
    }

    /// The sinus node has gone on beating; its first beat that finds the ventricles recovered is conducted.
    fn resume(&mut self) {
        let cycle_s = self.cycle_s();
        let recovered_s = self.beat_s + (0.55 * cycle_s).max(0.5);
        let mut tick_s = self.node_s + cycle_s;
        while tick_s < recovered_s {
            self.p_wave(tick_s - self.patient.pr_s);
            tick_s += cycle_s;
        }
        self.sinus_beat(tick_s);
    }

    /// One in four beats of a patient with two foci comes from the second one.
    fn pick_focus(&mut self) -> usize {
        usize::from(self.patient.role.focus_n > 1 && self.rng.random_bool(0.25))
    }

    fn live_by_pacemaker(&mut self, pacing: Pacing, shares: Shares, duration_s: f64) {
        const OWN_SPAN_BEAT_N: std::ops::RangeInclusive<u32> = 6..=14;
        let own_chance = 1.0 - shares.paced;
        let mut atrial_s = 0.3;
        self.beat_s = self.between(-0.6, -0.2);
        self.node_s = self.beat_s;
        while self.beat_s < duration_s + 1.0 {
            let own_n = f64::from(self.rng.random_range(OWN_SPAN_BEAT_N));
            let paced_n = if own_chance > 0.0 { own_n * shares.paced / own_chance } else { f64::INFINITY };
            let paced_n = paced_n * self.between(0.7, 1.3);
            self.paced_span(pacing, shares, paced_n, duration_s, &mut atrial_s);
            if own_chance > 0.0 {
                self.own_span(own_n);
            }
        }
    }

    fn paced_span(&mut self, pacing: Pacing, shares: Shares, beat_n: f64, duration_s: f64, atrial_s: &mut f64) {
        // P waves that nobody follows come a little faster than the pacemaker's clock.
        const ATRIAL_CYCLE: f64 = 0.87;
        *atrial_s = atrial_s.max(self.beat_s + 0.3);
        let (mut done_n, first_beat) = (0.0, self.timeline.beats.len());
        while done_n < beat_n && self.beat_s < duration_s + 1.0 {
            let is_early =
                done_n > 0.0 && self.rng.random_bool(shares.ventricular * self.patient.role.ventricular_share);
            let interval_s = match pacing {
                // A crystal keeps the time.
                Pacing::Ventricular => self.patient.cycle_s,
                Pacing::Tracking => self.cycle_s(),
            };
            if is_early {
                let at_s = self.beat_s + interval_s * self.between(0.55, 0.78);
                self.beat(at_s, Origin::Ectopic(0), "V");
            } else {
                let at_s = self.beat_s + interval_s;
                // At the end of a span of own beats both may reach the ventricles at once.
                let is_fused = done_n == 0.0 && first_beat > 0 && self.rng.random_bool(0.5);
                if pacing == Pacing::Tracking || is_fused {
                    self.p_wave(at_s - self.patient.pr_s);
                }
                let share = self.between(0.4, 0.65);
                let (origin, symbol) = if is_fused { (Origin::PacedFusion(share), "f") } else { (Origin::Paced, "/") };
                self.timeline.spikes_s.push(at_s - SPIKE_LEAD_S);
                self.beat(at_s, origin, symbol);
            }
            self.node_s = self.beat_s;
            if done_n == 0.0 {
                let label_s = self.beat_s - LABEL_LEAD_S;
                self.rhythm(if first_beat == 0 { 0.0 } else { label_s }, "(P");
            }
            done_n += 1.0;
        }
        while pacing == Pacing::Ventricular && *atrial_s < self.beat_s - self.patient.pr_s {
            self.p_wave(*atrial_s);
            *atrial_s += ATRIAL_CYCLE * self.patient.cycle_s * self.tachogram.relative_cycle(*atrial_s);
        }
    }

    /// The sinus node is faster than the pacemaker for a while, or conduction is back.
    fn own_span(&mut self, beat_n: f64) {
        let mut done_n = 0.0;
        while done_n < beat_n {
            let next_s = self.node_s + self.cycle_s() * 0.9;
            self.sinus_beat(next_s);
            if done_n == 0.0 {
                self.rhythm(next_s - LABEL_LEAD_S, "(N");
            }
            done_n += 1.0;
        }
    }
}

/// From the spike to time zero of the paced beat's waves.
const SPIKE_LEAD_S: f64 = 0.075;

/// Chances at each sinus beat, so that the shares of all beats come out as wanted.
struct Chances {
    atrial: f64,
    fusion: f64,
    ventricular: f64,
}

impl Chances {
    fn new(patient: &Patient, shares: Shares) -> Self {
        let role = patient.role;
        let weights: f64 = role.episodes.iter().map(|episode| episode.weight).sum();
        let mean = |count: &dyn Fn(&Episode) -> usize| {
            let of = |episode: &Episode| {
                let repeat_n = (episode.repeat_n.0 + episode.repeat_n.1) as f64 / 2.0;
                episode.weight * repeat_n * count(episode) as f64
            };
            role.episodes.iter().map(of).sum::<f64>() / weights
        };
        let (run_n, sinus_n) = (mean(&|episode| episode.run_n), mean(&|episode| episode.sinus_n));
        let (atrial, fusion) = (shares.atrial * role.atrial_share, shares.fusion * role.fusion_share);
        let ventricular = shares.ventricular * role.ventricular_share;
        // An early atrial or a fusion beat brings one more sinus beat with it, an episode `run_n + sinus_n` beats where
        // one was due: so many beats come from one draw.
        let beats_a_draw = 1.0 / (1.0 - atrial - fusion - ventricular * (run_n + sinus_n - 1.0) / run_n);
        Self {
            atrial: atrial * beats_a_draw,
            fusion: fusion * beats_a_draw,
            ventricular: ventricular * beats_a_draw / run_n,
        }
    }

    fn pick_episode(&self, episodes: &[Episode], rng: &mut Xoshiro256PlusPlus) -> Episode {
        let weights: f64 = episodes.iter().map(|episode| episode.weight).sum();
        let mut draw = rng.random_range(0.0..weights);
        for episode in episodes {
            draw -= episode.weight;
            if draw < 0.0 {
                return *episode;
            }
        }
        *episodes.last().expect("every role has an episode")
    }
}
