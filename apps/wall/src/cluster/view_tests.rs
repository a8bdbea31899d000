// SPDX-License-Identifier: MPL-2.0
use super::*;

const LEASE: Duration = Duration::from_secs(5);

const ALL_FIT: BTreeMap<String, bool> = BTreeMap::new();
const NONE_FAILS: BTreeSet<String> = BTreeSet::new();

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(1000.0 + seconds)
}

fn life(host: &str) -> Life {
    Life { host: host.into(), life: format!("{host}'s"), ..Life::default() }
}

fn lease(holder: Option<&str>, to: Option<&str>) -> Option<Lease> {
    let life = holder.map(|holder| format!("{holder}'s")).unwrap_or_default();
    Some(Lease { holder: holder.map(Into::into), life, epoch: 1, to: to.map(Into::into) })
}

/// A simulation of several walls that see every record at once: who holds what after all have done what they
/// decide, in turn.
struct World {
    view: View,
    held: BTreeMap<&'static str, BTreeMap<String, bool>>,
    revision: u64,
    now: f64,
}

impl World {
    fn new(cameras: usize) -> Self {
        let mut view = View::default();
        for number in 0..cameras {
            View::see(&mut view.cameras, &format!("c{number}"), 1, Listed::default(), at(0.0));
        }
        World { view, held: BTreeMap::new(), revision: 1, now: 0.0 }
    }

    fn write(&mut self, camera: &str, lease: Option<Lease>) {
        self.revision += 1;
        View::see(&mut self.view.leases, camera, self.revision, lease, at(self.now));
    }

    fn run(&mut self, alive: &[&'static str], seconds: f64) {
        let end = self.now + seconds;
        while self.now < end {
            self.now += 0.5;
            self.held.retain(|host, _| alive.contains(host));
            for host in alive {
                self.revision += 1;
                View::see(&mut self.view.walls, host, self.revision, life(host), at(self.now));
                let held = self.held.entry(host).or_default().clone();
                for camera in held.keys() {
                    self.write(camera, lease(Some(host), None));
                }
                let own = format!("{host}'s");
                let me = Me {
                    host,
                    life: &own,
                    max: None,
                    held: &held,
                    unfit: &ALL_FIT,
                    failing: &NONE_FAILS,
                };
                for act in self.view.decide(&me, at(self.now), LEASE) {
                    match act {
                        Act::Claim { camera, revision } => {
                            let stands =
                                self.view.leases.get(&camera).map_or(0, |seen| seen.revision);
                            assert_eq!(revision, stands);
                            self.write(&camera, lease(Some(host), None));
                            self.held.get_mut(host).unwrap().insert(camera, false);
                        }
                        Act::Give { camera, to } => {
                            self.held.get_mut(host).unwrap().remove(&camera);
                            self.write(&camera, lease(None, Some(&to)));
                        }
                    }
                }
            }
        }
    }

    fn counts(&self) -> Vec<usize> {
        self.held.values().map(BTreeMap::len).collect()
    }

    fn watched(&self) -> usize {
        let all: BTreeSet<&String> = self.held.values().flat_map(BTreeMap::keys).collect();
        assert_eq!(all.len(), self.counts().iter().sum::<usize>(), "one camera, one wall");
        all.len()
    }
}

#[test]
fn cameras_are_spread_evenly_whoever_comes_and_goes() {
    for cameras in [1, 2, 7, 16] {
        let mut world = World::new(cameras);
        world.run(&["a"], 2.0);
        assert_eq!(world.counts(), [cameras]);
        world.run(&["a", "b"], 20.0);
        assert_eq!(world.watched(), cameras);
        world.run(&["a", "b", "c"], 20.0);
        assert_eq!(world.watched(), cameras);
        let counts = world.counts();
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        // `b` dies: within a lease and a moment all are watched again.
        world.run(&["a", "c"], LEASE.as_secs_f64() + 1.5);
        assert_eq!(world.watched(), cameras);
        world.run(&["a", "c"], 10.0);
        let counts = world.counts();
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    }
}

#[test]
fn nothing_is_taken_before_its_lease_has_run_out_by_ones_own_clock() {
    let mut view = View::default();
    View::see(&mut view.cameras, "yard", 1, Listed::default(), at(0.0));
    View::see(&mut view.leases, "yard", 7, lease(Some("b"), None), at(0.0));
    let held = BTreeMap::new();
    let me = Me {
        host: "a",
        life: "a's",
        max: None,
        held: &held,
        unfit: &ALL_FIT,
        failing: &NONE_FAILS,
    };
    assert_eq!(view.decide(&me, at(4.9), LEASE), []);
    // It was renewed, which is known late: the time counts from when it is known.
    View::see(&mut view.leases, "yard", 8, lease(Some("b"), None), at(4.95));
    assert_eq!(view.decide(&me, at(9.9), LEASE), []);
    let claim = [Act::Claim { camera: "yard".into(), revision: 8 }];
    assert_eq!(view.decide(&me, at(10.0), LEASE), claim);
    // An older record that comes late changes nothing.
    assert!(!View::see(&mut view.leases, "yard", 6, lease(Some("c"), None), at(10.0)));
    assert_eq!(view.decide(&me, at(10.0), LEASE), claim);
}

#[test]
fn a_camera_given_up_for_one_wall_waits_for_it_a_while() {
    let mut view = View::default();
    View::see(&mut view.cameras, "yard", 1, Listed::default(), at(0.0));
    View::see(&mut view.walls, "b", 2, life("b"), at(0.0));
    View::see(&mut view.leases, "yard", 3, lease(None, Some("b")), at(1.0));
    let held = BTreeMap::new();
    let decide = |host: &'static str, now: f64| {
        let own = format!("{host}'s");
        view.decide(
            &Me { host, life: &own, max: None, held: &held, unfit: &ALL_FIT, failing: &NONE_FAILS },
            at(now),
            LEASE,
        )
    };
    assert_eq!(decide("b", 1.0).len(), 1);
    assert_eq!(decide("a", 2.9), []);
    assert_eq!(decide("a", 3.0).len(), 1);
    // A wall that is gone is not waited for.
    assert_eq!(decide("a", 6.0).len(), 1);
}

#[test]
fn no_wall_takes_more_than_it_may() {
    let mut view = View::default();
    for camera in ["a", "b", "c"] {
        View::see(&mut view.cameras, camera, 1, Listed::default(), at(0.0));
    }
    let held = BTreeMap::new();
    let me = Me {
        host: "x",
        life: "x's",
        max: Some(2),
        held: &held,
        unfit: &ALL_FIT,
        failing: &NONE_FAILS,
    };
    assert_eq!(view.decide(&me, at(60.0), LEASE).len(), 2);
}

#[test]
fn a_claim_of_an_earlier_life_is_waited_out() {
    let mut view = View::default();
    View::see(&mut view.cameras, "yard", 1, Listed::default(), at(0.0));
    View::see(&mut view.leases, "yard", 7, lease(Some("a"), None), at(0.0));
    let held = BTreeMap::new();
    let decide = |life: &str, now| {
        view.decide(
            &Me { host: "a", life, max: None, held: &held, unfit: &ALL_FIT, failing: &NONE_FAILS },
            at(now),
            LEASE,
        )
        .len()
    };
    assert_eq!(decide("another", 4.0), 0);
    assert_eq!(decide("another", 5.0), 1);
    assert_eq!(decide("a's", 0.0), 1, "its own, which came late");
}

#[test]
fn a_camera_that_does_not_start_goes_to_a_wall_that_has_not_tried_it_and_stays_away() {
    let mut view = View::default();
    let mut revision = 0;
    for camera in ["c0", "c1", "c2"] {
        View::see(&mut view.cameras, camera, 1, Listed::default(), at(0.0));
    }
    let unfit = |again| -> BTreeMap<String, bool> { [("c0".to_owned(), again)].into() };
    let mut seen = |view: &mut View, host: &str, unfit: BTreeMap<String, bool>| {
        revision += 1;
        View::see(&mut view.walls, host, revision, Life { unfit, ..life(host) }, at(0.0));
    };
    for host in ["a", "b", "c"] {
        seen(&mut view, host, BTreeMap::new());
    }
    let failing: BTreeSet<String> = ["c0".to_owned()].into();
    let holds = |cameras: &[&str]| -> BTreeMap<String, bool> {
        cameras.iter().map(|camera| ((*camera).to_owned(), false)).collect()
    };
    for (camera, host) in [("c0", "a"), ("c1", "b"), ("c2", "b")] {
        View::see(&mut view.leases, camera, 1, lease(Some(host), None), at(0.0));
    }
    let held = holds(&["c0"]);
    let give = |view: &View, unfit: &BTreeMap<String, bool>| {
        let me = Me { host: "a", life: "a's", max: None, held: &held, unfit, failing: &failing };
        view.decide(&me, at(1.0), LEASE)
    };
    let to = |to: &str| vec![Act::Give { camera: "c0".into(), to: to.into() }];
    // The one that has fewest, of those that have not tried; then one that may again; then nobody.
    assert_eq!(give(&view, &unfit(false)), to("c"));
    seen(&mut view, "c", unfit(false));
    assert_eq!(give(&view, &unfit(false)), to("b"));
    seen(&mut view, "b", unfit(false));
    assert_eq!(give(&view, &unfit(false)), []);
    seen(&mut view, "b", unfit(true));
    assert_eq!(give(&view, &unfit(false)), to("b"));

    // Evenness gives another one back.
    seen(&mut view, "a", unfit(false));
    let held = holds(&["c0", "c1", "c2"]);
    for camera in ["c0", "c1", "c2"] {
        View::see(&mut view.leases, camera, 2, lease(Some("b"), None), at(0.0));
    }
    let me = Me {
        host: "b",
        life: "b's",
        max: None,
        held: &held,
        unfit: &ALL_FIT,
        failing: &NONE_FAILS,
    };
    for act in view.decide(&me, at(1.0), LEASE) {
        assert!(!matches!(act, Act::Give { camera, .. } if camera == "c0"));
    }

    // Free, it is left to who can, for a while.
    View::see(&mut view.leases, "c0", 3, lease(None, None), at(0.0));
    let held = holds(&["c1"]);
    let unfit = unfit(false);
    let claims = |view: &View, now: f64| {
        let me = Me {
            host: "a",
            life: "a's",
            max: None,
            held: &held,
            unfit: &unfit,
            failing: &NONE_FAILS,
        };
        !view.decide(&me, at(now), Duration::from_secs(60)).is_empty()
    };
    seen(&mut view, "c", BTreeMap::new());
    assert!(!claims(&view, 3.0));
    assert!(claims(&view, 6.0));
}
