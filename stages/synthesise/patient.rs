//! Owns who the invented patients are: what ails each of them, how fast the heart beats, and the shape of every wave in
//! every lead. Knows nothing of when a beat comes ([`super::timeline`]) nor of samples ([`super::signal`]).
//!
//! As in ECGSYN (McSharry, Clifford, Tarassenko, Smith: A dynamical model for generating synthetic electrocardiogram
//! signals, IEEE Trans Biomed Eng 50(3), 2003) a beat is a sum of Gaussians named P, Q, R, S and T. Two things differ:
//! the sum is written down over time instead of integrated over a phase, so that a beat may come when it will, and a
//! Gaussian may rise faster than it falls, as a T wave does. Amplitudes and durations are those of textbooks of
//! electrocardiography (QRS of 80 to 100 ms, 130 ms and more with a bundle branch block, a ventricular origin or a
//! pacemaker; T opposite to a wide QRS); each patient deviates from them at random.

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

/// One wave: a Gaussian with its own width on each side of its peak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wave {
    /// Height, negative for a wave that points down.
    pub(super) amplitude_mv: f64,
    /// Peak, relative to the beat's time.
    pub(super) at_s: f64,
    /// Standard deviation before the peak.
    pub(super) left_s: f64,
    /// Standard deviation after the peak.
    pub(super) right_s: f64,
}

/// A ventricular beat in one lead.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Depolarisation. Its time does not depend on the heart rate.
    pub(super) qrs: Vec<Wave>,
    /// Repolarisation at a cycle of 1 s; a shorter cycle brings it forward.
    pub(super) t: Wave,
}

/// Where an electrode pair looks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Modified limb lead II: along the heart's axis. Every patient has it.
    Mlii,
    /// Right of the sternum.
    V1,
    /// Left side.
    V5,
}

impl Placement {
    /// The lead's name in the header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mlii => "MLII",
            Self::V1 => "V1",
            Self::V5 => "V5",
        }
    }
}

/// All waves of one patient in one lead.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    /// Where it looks from.
    pub(super) placement: Placement,
    /// The P wave of the sinus node.
    pub(super) p: Vec<Wave>,
    /// The P wave of the ectopic atrial focus.
    pub(super) ectopic_p: Vec<Wave>,
    /// A beat that came through the conduction system.
    pub(super) conducted: Shape,
    /// Beats from ventricular foci, the commonest first.
    pub(super) ectopic: Vec<Shape>,
    /// A beat started by the pacemaker.
    pub(super) paced: Shape,
    /// The pacemaker's spike.
    pub(super) spike: Wave,
}

/// How the impulse reaches the ventricles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduction {
    /// Both bundle branches conduct.
    Normal,
    /// Left bundle branch block.
    LeftBlock,
    /// Right bundle branch block.
    RightBlock,
}

/// What a pacemaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pacing {
    /// VVI: beats at its own clock while the ventricle is silent; P waves march through.
    Ventricular,
    /// DDD: follows every P wave after a fixed delay.
    Tracking,
}

/// A pattern of premature ventricular beats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    /// How often it is chosen, relative to the others of the role.
    pub(super) weight: f64,
    /// Ventricular beats in a row.
    pub(super) run_n: usize,
    /// Sinus beats after each run.
    pub(super) sinus_n: usize,
    /// How often run and sinus beats repeat: at least and at most.
    pub(super) repeat_n: (usize, usize),
    /// The rhythm that it makes, as the MIT-BIH database names it; empty for none.
    pub(super) rhythm: &'static str,
}

const fn single(weight: f64) -> Episode {
    Episode { weight, run_n: 1, sinus_n: 1, repeat_n: (1, 1), rhythm: "" }
}

const fn couplet(weight: f64) -> Episode {
    Episode { run_n: 2, ..single(weight) }
}

const fn tachycardia(weight: f64) -> Episode {
    Episode { run_n: 3, rhythm: "(VT", ..single(weight) }
}

const fn bigeminy(weight: f64) -> Episode {
    Episode { repeat_n: (4, 9), rhythm: "(B", ..single(weight) }
}

const fn trigeminy(weight: f64) -> Episode {
    Episode { sinus_n: 2, repeat_n: (3, 6), rhythm: "(T", ..single(weight) }
}

/// What ails a patient. Shares are relative to the stage's parameters; none is above 1.
#[derive(Debug)]
pub(super) struct Role {
    /// How the impulse reaches the ventricles.
    pub(super) conduction: Conduction,
    /// Premature atrial beats.
    pub(super) atrial_share: f64,
    /// Premature ventricular beats.
    pub(super) ventricular_share: f64,
    /// Fusion beats.
    pub(super) fusion_share: f64,
    /// Patterns of the premature ventricular beats.
    pub(super) episodes: &'static [Episode],
    /// How many ventricular foci there are.
    pub(super) focus_n: usize,
    /// A pacemaker.
    pub(super) pacing: Option<Pacing>,
    /// Slowest and fastest mean heart rate.
    pub(super) rate_bpm: (f64, f64),
    /// In words, for the header.
    pub(super) description: &'static str,
}

/// A healthy heart; roles say how they differ.
const HEALTHY: Role = Role {
    conduction: Conduction::Normal,
    atrial_share: 0.0,
    ventricular_share: 0.0,
    fusion_share: 0.0,
    episodes: &[single(1.0)],
    focus_n: 1,
    pacing: None,
    rate_bpm: (60.0, 80.0),
    description: "",
};

/// Patient `i` has role `i % 8`, so that the first [`super::ALL_CLASSES_PATIENTS_N`] patients hold every class three
/// times (guarded by `tests::each_class_is_in_three_patients_or_more`).
const ROLES: [Role; 8] = [
    Role {
        atrial_share: 1.0,
        ventricular_share: 0.6,
        fusion_share: 0.8,
        description: "sinus rhythm, premature atrial and ventricular beats, fusion beats",
        ..HEALTHY
    },
    Role {
        atrial_share: 0.7,
        ventricular_share: 0.8,
        episodes: &[single(0.72), couplet(0.2), tachycardia(0.08)],
        description: "sinus rhythm, premature ventricular beats in couplets and short runs, premature atrial beats",
        ..HEALTHY
    },
    Role {
        conduction: Conduction::LeftBlock,
        ventricular_share: 0.8,
        fusion_share: 1.0,
        rate_bpm: (62.0, 78.0),
        description: "left bundle branch block, premature ventricular beats, fusion beats",
        ..HEALTHY
    },
    Role {
        ventricular_share: 0.2,
        pacing: Some(Pacing::Ventricular),
        rate_bpm: (58.0, 72.0),
        description: "ventricular pacemaker on demand (VVI), premature ventricular beats",
        ..HEALTHY
    },
    Role {
        atrial_share: 1.0,
        ventricular_share: 0.3,
        rate_bpm: (74.0, 94.0),
        description: "brisk sinus rhythm, frequent premature atrial beats",
        ..HEALTHY
    },
    Role {
        ventricular_share: 1.0,
        fusion_share: 0.8,
        episodes: &[single(0.85), bigeminy(0.1), trigeminy(0.05)],
        focus_n: 2,
        description: "sinus rhythm, multiform premature ventricular beats in bigeminy and trigeminy, fusion beats",
        ..HEALTHY
    },
    Role {
        conduction: Conduction::RightBlock,
        atrial_share: 0.6,
        ventricular_share: 0.5,
        fusion_share: 0.8,
        episodes: &[single(0.85), couplet(0.15)],
        rate_bpm: (64.0, 84.0),
        description: "right bundle branch block, premature atrial and ventricular beats, fusion beats",
        ..HEALTHY
    },
    Role {
        pacing: Some(Pacing::Tracking),
        rate_bpm: (62.0, 80.0),
        description: "dual-chamber pacemaker (DDD)",
        ..HEALTHY
    },
];

/// An invented patient.
#[derive(Clone, Debug)]
pub(super) struct Patient {
    /// What ails the patient.
    pub(super) role: &'static Role,
    /// Years.
    pub(super) age: u32,
    /// `F` or `M`.
    pub(super) sex: char,
    /// Samples per second of the recorder.
    pub(super) sampling_frequency_hz: f64,
    /// Mains frequency of the country.
    pub(super) mains_hz: f64,
    /// Mean cycle of the sinus node.
    pub(super) cycle_s: f64,
    /// Standard deviation of the cycle due to the 0.1 Hz rhythm of blood pressure, relative to the cycle.
    pub(super) pressure_variability: f64,
    /// Standard deviation of the cycle due to breathing, relative to the cycle.
    pub(super) breathing_variability: f64,
    /// Breaths per second.
    pub(super) breathing_hz: f64,
    /// From the peak of P to the beat's time.
    pub(super) pr_s: f64,
    /// Muscle noise and mains hum, relative to the stage's parameters.
    pub(super) noise_gain: f64,
    /// The leads in file order.
    pub(super) leads: Vec<Lead>,
}

impl Patient {
    /// Invents patient `patient_idx`. The role, the recorder and the leads follow from the index alone, so that every
    /// class and every sampling frequency is there whatever the seed; everything else is drawn.
    pub(super) fn invent(patient_idx: usize, two_leads_fraction: f64, rng: &mut Xoshiro256PlusPlus) -> Self {
        let role = &ROLES[patient_idx % ROLES.len()];
        let rate_bpm = rng.random_range(role.rate_bpm.0..role.rate_bpm.1);
        let body = Body::draw(patient_idx, role, rng);
        let leads = placements(patient_idx, two_leads_fraction).into_iter().map(|placement| body.lead(placement, rng));
        let leads = leads.collect();
        let is_worn = role.pacing.is_some() || role.conduction != Conduction::Normal;
        let age = rng.random_range(if is_worn { 58..89 } else { 24..86 });
        Self {
            role,
            age,
            sex: if rng.random_bool(0.5) { 'F' } else { 'M' },
            // Most recorders are like that of the MIT-BIH Arrhythmia Database; the others make resampling work.
            sampling_frequency_hz: match patient_idx % 10 {
                5 => 250.0,
                9 => 500.0,
                _ => 360.0,
            },
            mains_hz: if patient_idx.is_multiple_of(2) { 60.0 } else { 50.0 },
            cycle_s: 60.0 / rate_bpm,
            pressure_variability: rng.random_range(0.012..0.03),
            // Breathing moves the heart rate less and less with age.
            breathing_variability: rng.random_range(0.5..1.5) * (0.035 - 0.000_3 * f64::from(age)),
            breathing_hz: rng.random_range(0.2..0.32),
            pr_s: rng.random_range(0.14..0.18),
            noise_gain: rng.random_range(0.5..1.5),
            leads,
        }
    }

    /// The lead that beats are annotated on: MLII.
    pub(super) fn reference_lead(&self) -> &Lead {
        let is_mlii = |lead: &&Lead| lead.placement == Placement::Mlii;
        self.leads.iter().find(is_mlii).expect("every patient has the lead MLII")
    }
}

/// One or two leads; MLII is always there, now and then in second place, as in record 114 of the MIT-BIH database.
fn placements(patient_idx: usize, two_leads_fraction: f64) -> Vec<Placement> {
    // Spreads the patients with two leads evenly.
    let until = |count: usize| (count as f64 * two_leads_fraction).floor();
    if until(patient_idx + 1) <= until(patient_idx) {
        return vec![Placement::Mlii];
    }
    let other = if patient_idx % 3 == 1 { Placement::V5 } else { Placement::V1 };
    if patient_idx % 7 == 4 { vec![Placement::V5, Placement::Mlii] } else { vec![Placement::Mlii, other] }
}

/// Where ventricular beats come from.
#[derive(Clone, Copy, Debug)]
enum Focus {
    /// Outflow tract: upright in MLII.
    Outflow,
    /// Left ventricle: downward in MLII, upright in V1.
    Left,
    /// Inferior wall: up and down in MLII.
    Inferior,
}

/// What is one and the same in all leads of a patient.
struct Body {
    conduction: Conduction,
    foci: Vec<Focus>,
    is_septal_pacing: bool,
    is_low_atrial: bool,
    gain: f64,
    spike_mv: f64,
}

impl Body {
    fn draw(patient_idx: usize, role: &Role, rng: &mut Xoshiro256PlusPlus) -> Self {
        // A left bundle branch block looks like an outflow focus, and one in the left ventricle would be its mirror
        // image, so that a fusion of both were flat.
        let order = match (role.conduction, patient_idx / ROLES.len() % 3) {
            (Conduction::LeftBlock, _) => [Focus::Inferior, Focus::Left],
            (_, 0) => [Focus::Outflow, Focus::Left],
            (_, 1) => [Focus::Left, Focus::Outflow],
            _ => [Focus::Inferior, Focus::Outflow],
        };
        Self {
            conduction: role.conduction,
            foci: order[..role.focus_n].to_vec(),
            is_septal_pacing: rng.random_bool(0.3),
            is_low_atrial: rng.random_bool(0.5),
            gain: rng.random_range(0.75..1.3),
            spike_mv: rng.random_range(0.3..0.8) * if rng.random_bool(0.5) { 1.0 } else { -1.0 },
        }
    }

    /// The waves in one lead, each a little off the textbook.
    fn lead(&self, placement: Placement, rng: &mut Xoshiro256PlusPlus) -> Lead {
        let mut vary = |wave: Wave| {
            let mut factor = |deviation: f64| {
                let normal: f64 = StandardNormal.sample(rng);
                1.0 + deviation * normal.clamp(-2.0, 2.0)
            };
            Wave {
                amplitude_mv: wave.amplitude_mv * self.gain * factor(0.12),
                at_s: wave.at_s * factor(0.05),
                left_s: wave.left_s * factor(0.06),
                right_s: wave.right_s * factor(0.06),
            }
        };
        let mut vary_shape =
            |(qrs, t): (&[Wave], Wave)| Shape { qrs: qrs.iter().map(|&w| vary(w)).collect(), t: vary(t) };
        let conducted = vary_shape(conducted(self.conduction, placement));
        let ectopic = self.foci.iter().map(|&focus| vary_shape(ectopic(focus, placement))).collect();
        let paced = vary_shape(paced(self.is_septal_pacing, placement));
        Lead {
            placement,
            p: sinus_p(placement).iter().map(|&w| vary(w)).collect(),
            ectopic_p: ectopic_p(self.is_low_atrial, placement).iter().map(|&w| vary(w)).collect(),
            conducted,
            ectopic,
            paced,
            // A spike lasts 0.5 ms in the heart; the recorder's filters smear it over some samples.
            spike: wave(self.spike_mv * if placement == Placement::V1 { -0.7 } else { 1.0 }, 0.0, 2.2, 3.2),
        }
    }
}

const fn wave(amplitude_mv: f64, at_ms: f64, left_ms: f64, right_ms: f64) -> Wave {
    Wave { amplitude_mv, at_s: at_ms / 1e3, left_s: left_ms / 1e3, right_s: right_ms / 1e3 }
}

fn sinus_p(placement: Placement) -> &'static [Wave] {
    const MLII: [Wave; 2] = [wave(0.11, -10.0, 18.0, 16.0), wave(0.08, 16.0, 16.0, 18.0)];
    const V1: [Wave; 2] = [wave(0.07, -16.0, 14.0, 14.0), wave(-0.06, 18.0, 15.0, 17.0)];
    const V5: [Wave; 1] = [wave(0.09, 0.0, 23.0, 22.0)];
    match placement {
        Placement::Mlii => &MLII,
        Placement::V1 => &V1,
        Placement::V5 => &V5,
    }
}

fn ectopic_p(is_low_atrial: bool, placement: Placement) -> &'static [Wave] {
    const MLII_LOW: [Wave; 1] = [wave(-0.13, 0.0, 19.0, 17.0)];
    const MLII_HIGH: [Wave; 1] = [wave(0.19, 0.0, 14.0, 14.0)];
    const V1: [Wave; 1] = [wave(0.10, 0.0, 17.0, 17.0)];
    const V5_LOW: [Wave; 1] = [wave(-0.08, 0.0, 19.0, 17.0)];
    const V5_HIGH: [Wave; 1] = [wave(0.12, 0.0, 15.0, 14.0)];
    match (placement, is_low_atrial) {
        (Placement::Mlii, true) => &MLII_LOW,
        (Placement::Mlii, false) => &MLII_HIGH,
        (Placement::V1, _) => &V1,
        (Placement::V5, true) => &V5_LOW,
        (Placement::V5, false) => &V5_HIGH,
    }
}

fn conducted(conduction: Conduction, placement: Placement) -> (&'static [Wave], Wave) {
    match (conduction, placement) {
        (Conduction::Normal, Placement::Mlii) => {
            const QRS: [Wave; 3] =
                [wave(-0.09, -25.0, 8.0, 8.0), wave(1.2, 0.0, 10.0, 10.0), wave(-0.22, 26.0, 9.0, 11.0)];
            (&QRS, wave(0.3, 295.0, 60.0, 38.0))
        }
        (Conduction::Normal, Placement::V1) => {
            const QRS: [Wave; 2] = [wave(0.25, -11.0, 8.0, 8.0), wave(-0.95, 12.0, 12.0, 14.0)];
            (&QRS, wave(0.14, 285.0, 55.0, 40.0))
        }
        (Conduction::Normal, Placement::V5) => {
            const QRS: [Wave; 3] =
                [wave(-0.10, -25.0, 8.0, 8.0), wave(1.35, 1.0, 11.0, 11.0), wave(-0.28, 28.0, 10.0, 12.0)];
            (&QRS, wave(0.38, 290.0, 58.0, 38.0))
        }
        (Conduction::LeftBlock, Placement::Mlii) => {
            const QRS: [Wave; 2] = [wave(0.55, -28.0, 18.0, 17.0), wave(0.95, 14.0, 19.0, 26.0)];
            (&QRS, wave(-0.27, 305.0, 72.0, 45.0))
        }
        (Conduction::LeftBlock, Placement::V1) => {
            const QRS: [Wave; 2] = [wave(0.14, -50.0, 9.0, 9.0), wave(-1.3, 8.0, 30.0, 30.0)];
            (&QRS, wave(0.42, 300.0, 72.0, 48.0))
        }
        (Conduction::LeftBlock, Placement::V5) => {
            const QRS: [Wave; 2] = [wave(0.65, -26.0, 18.0, 17.0), wave(1.0, 16.0, 19.0, 26.0)];
            (&QRS, wave(-0.32, 305.0, 72.0, 45.0))
        }
        (Conduction::RightBlock, Placement::Mlii) => {
            const QRS: [Wave; 3] =
                [wave(-0.07, -26.0, 8.0, 8.0), wave(1.05, 0.0, 11.0, 12.0), wave(-0.32, 50.0, 14.0, 27.0)];
            (&QRS, wave(0.24, 300.0, 58.0, 40.0))
        }
        (Conduction::RightBlock, Placement::V1) => {
            const QRS: [Wave; 3] =
                [wave(0.3, -15.0, 9.0, 9.0), wave(-0.38, 9.0, 10.0, 10.0), wave(0.9, 49.0, 15.0, 20.0)];
            (&QRS, wave(-0.24, 300.0, 60.0, 42.0))
        }
        (Conduction::RightBlock, Placement::V5) => {
            const QRS: [Wave; 3] =
                [wave(-0.08, -26.0, 8.0, 8.0), wave(1.2, 0.0, 11.0, 12.0), wave(-0.4, 49.0, 14.0, 29.0)];
            (&QRS, wave(0.3, 295.0, 58.0, 40.0))
        }
    }
}

fn ectopic(focus: Focus, placement: Placement) -> (&'static [Wave], Wave) {
    match (focus, placement) {
        (Focus::Outflow, Placement::Mlii) => {
            const QRS: [Wave; 2] = [wave(1.75, 0.0, 32.0, 34.0), wave(0.4, 66.0, 16.0, 24.0)];
            (&QRS, wave(-0.6, 325.0, 80.0, 50.0))
        }
        (Focus::Outflow, Placement::V1) => {
            const QRS: [Wave; 2] = [wave(0.16, -58.0, 12.0, 12.0), wave(-1.45, 6.0, 36.0, 38.0)];
            (&QRS, wave(0.6, 322.0, 80.0, 50.0))
        }
        (Focus::Outflow, Placement::V5) => {
            const QRS: [Wave; 2] = [wave(1.25, 2.0, 33.0, 36.0), wave(0.25, 66.0, 16.0, 24.0)];
            (&QRS, wave(-0.42, 325.0, 80.0, 50.0))
        }
        (Focus::Left, Placement::Mlii) => {
            const QRS: [Wave; 2] = [wave(0.28, -66.0, 13.0, 13.0), wave(-1.45, 0.0, 34.0, 40.0)];
            (&QRS, wave(0.6, 325.0, 80.0, 48.0))
        }
        (Focus::Left, Placement::V1) => {
            const QRS: [Wave; 2] = [wave(1.15, -6.0, 32.0, 34.0), wave(0.3, 58.0, 16.0, 22.0)];
            (&QRS, wave(-0.48, 325.0, 78.0, 48.0))
        }
        (Focus::Left, Placement::V5) => {
            const QRS: [Wave; 2] = [wave(0.4, -48.0, 17.0, 17.0), wave(-1.1, 22.0, 32.0, 36.0)];
            (&QRS, wave(0.42, 325.0, 78.0, 48.0))
        }
        (Focus::Inferior, Placement::Mlii) => {
            const QRS: [Wave; 2] = [wave(0.7, -40.0, 20.0, 20.0), wave(-1.35, 34.0, 27.0, 32.0)];
            (&QRS, wave(0.5, 335.0, 78.0, 48.0))
        }
        (Focus::Inferior, Placement::V1) => {
            const QRS: [Wave; 1] = [wave(-1.1, 0.0, 36.0, 42.0)];
            (&QRS, wave(0.42, 325.0, 78.0, 48.0))
        }
        (Focus::Inferior, Placement::V5) => {
            const QRS: [Wave; 2] = [wave(1.1, -16.0, 28.0, 28.0), wave(-0.5, 54.0, 22.0, 28.0)];
            (&QRS, wave(-0.2, 330.0, 78.0, 48.0))
        }
    }
}

fn paced(is_septal: bool, placement: Placement) -> (&'static [Wave], Wave) {
    match (is_septal, placement) {
        // From the apex of the right ventricle the impulse runs away from MLII.
        (false, Placement::Mlii) => {
            const QRS: [Wave; 2] = [wave(-1.3, 6.0, 30.0, 38.0), wave(-0.3, 66.0, 18.0, 22.0)];
            (&QRS, wave(0.5, 335.0, 80.0, 52.0))
        }
        (false, Placement::V1) => {
            const QRS: [Wave; 1] = [wave(-1.25, 4.0, 34.0, 40.0)];
            (&QRS, wave(0.5, 330.0, 80.0, 52.0))
        }
        (false, Placement::V5) => {
            const QRS: [Wave; 1] = [wave(-0.9, 10.0, 33.0, 40.0)];
            (&QRS, wave(0.4, 330.0, 80.0, 52.0))
        }
        (true, Placement::Mlii) => {
            const QRS: [Wave; 2] = [wave(1.15, 0.0, 30.0, 34.0), wave(0.3, 62.0, 18.0, 24.0)];
            (&QRS, wave(-0.36, 330.0, 78.0, 50.0))
        }
        (true, Placement::V1) => {
            const QRS: [Wave; 2] = [wave(0.1, -46.0, 10.0, 10.0), wave(-1.2, 6.0, 34.0, 38.0)];
            (&QRS, wave(0.45, 330.0, 78.0, 50.0))
        }
        (true, Placement::V5) => {
            const QRS: [Wave; 2] = [wave(1.0, 0.0, 31.0, 35.0), wave(0.25, 62.0, 18.0, 24.0)];
            (&QRS, wave(-0.32, 330.0, 78.0, 50.0))
        }
    }
}
