fn main() {
    env_logger::init();
    let ep = std::env::args().nth(1).unwrap();
    let mut b = headcount::Cluster::builder().endpoints([ep]);
    if let Some(id) = std::env::args().nth(2) {
        b = b.member("t", id);
    }
    let t = std::time::Instant::now();
    let c = b.start().unwrap();
    eprintln!("started in {:?}", t.elapsed());
    let rx = c.subscribe();
    for ev in rx.iter() {
        println!("{:?} {ev}", t.elapsed());
        if t.elapsed().as_secs() > 25 {
            break;
        }
    }
    let t = std::time::Instant::now();
    c.leave().unwrap();
    eprintln!("left in {:?}", t.elapsed());
}
