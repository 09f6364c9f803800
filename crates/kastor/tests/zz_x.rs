//! x
use kastor::*;
#[test]
fn series() {
    let tele = Telemetry::builder().build();
    let _c = tele.override_current();
    let names: Vec<String> = (0..60).map(|n| format!("m{n}")).collect();
    for n in 0..2000u64 {
        for name in &names {
            tele.counter(name, &[("id", n.into())]).add(1);
        }
    }
    let r = tele.report();
    println!("series {} calls {} overflow {:?}", r.series().len(), r.series().iter().map(|s| s.calls()).sum::<u64>(), r.series().iter().filter(|s| s.labels().get("kastor.overflow").is_some()).map(|s| (s.path(), s.calls())).collect::<Vec<_>>().len());
    println!("{} {}", tele.stats().overflowed_series(), tele.stats());
}
fn ev() -> u32 { println!("  EVALUATED"); 1 }
#[test]
fn zattrs() {
    let on = Telemetry::builder().build();
    println!("current none, another context exists"); drop(scope!("a1", k = ev()));
    println!("current none, metric!"); metric!("m1", ev(), k = ev());
    println!("current none, count!"); count!("c1", 1, k = ev());
    {   let _d = Telemetry::disabled().override_current();
        println!("override disabled"); drop(scope!("a2", k = ev())); metric!("m2", ev()); count!("c2", 1, k = ev()); }
    let off = Telemetry::builder().build(); off.set_enabled(false);
    {   let _d = off.override_current();
        println!("override switched off"); drop(scope!("a3", k = ev())); metric!("m3", ev()); count!("c3", 1, k = ev()); }
    let glob = Telemetry::builder().build(); glob.switch_scopes("u.*", false);
    println!("explicit, name off here, on elsewhere"); drop(scope!(glob, "u.x", k = ev()));
    { let _g = glob.override_current(); println!("current, name off here, on elsewhere"); drop(scope!("u.x", k = ev())); }
    drop(on);
}
#[test]
fn zorder() {
    let tele = Telemetry::builder().build();
    let a = tele.scope("a").carrier(); let b = tele.scope("b").carrier();
    let ga = a.attach(); let gb = b.attach();
    drop(ga); println!("b expected: {:?}", Carrier::current());
    drop(gb); println!("none expected: {:?}", Carrier::current());
}
