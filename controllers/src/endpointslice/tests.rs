//! Pods and slices in, writes out; a fake store applies them.

use super::*;
use crate::{
    object::time,
    pod::tests::at,
    service::tests::{service, serving},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

fn zone(node: &str) -> Option<String> {
    (node == "n1").then(|| "zone-a".to_owned())
}

fn shared(pods: Vec<Pod>) -> Vec<Arc<Pod>> {
    pods.into_iter().map(Arc::new).collect()
}

fn pods(range: std::ops::Range<usize>) -> Vec<Arc<Pod>> {
    range
        .map(|i| {
            Arc::new(serving(&format!("p{i}"), &format!("10.0.{}.{}", i / 200, i % 200), true, 80))
        })
        .collect()
}

#[derive(Default)]
struct Fake {
    slices: Vec<Arc<EndpointSlice>>,
}

impl Fake {
    fn pass(&mut self, service: &Service, pods: &[Arc<Pod>]) -> (usize, usize, usize) {
        let outcome = reconcile(service, pods, zone, &self.slices);
        let counts = (outcome.create.len(), outcome.update.len(), outcome.delete.len());
        for mut slice in outcome.create {
            slice.metadata.uid = Some(format!("uid-{}", slice.name_any()));
            assert!(!self.slices.iter().any(|known| known.name_any() == slice.name_any()));
            self.slices.push(Arc::new(slice));
        }
        for slice in outcome.update {
            let known =
                self.slices.iter_mut().find(|known| known.metadata.uid == slice.metadata.uid);
            *known.unwrap() = Arc::new(slice);
        }
        self.slices
            .retain(|slice| !outcome.delete.iter().any(|meta| meta.uid == slice.metadata.uid));
        let again = reconcile(service, pods, zone, &self.slices);
        assert_eq!(again, Outcome::default(), "a second pass has nothing to do");
        counts
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<_> =
            self.slices.iter().map(|slice| slice.endpoints.iter().flatten().count()).collect();
        sizes.sort_unstable();
        sizes
    }
}

#[test]
fn endpoint_tells_readiness_place_and_pod() {
    let mut leaving = serving("leaving", "10.0.0.3", true, 80);
    leaving.metadata.deletion_timestamp = Some(time(at(5)));
    let pods = shared(vec![
        serving("ready", "10.0.0.1", true, 80),
        serving("unready", "10.0.0.2", false, 80),
        leaving,
        serving("without-address", "", true, 80),
    ]);
    let conditions = |publish: bool| {
        let mut service = service(IntOrString::Int(80));
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(publish);
        let outcome = reconcile(&service, &pods, zone, &[]);
        let endpoints = outcome.create[0].endpoints.clone().unwrap();
        let tell = |endpoint: &Endpoint| {
            let conditions = endpoint.conditions.clone().unwrap();
            (
                conditions.ready.unwrap(),
                conditions.serving.unwrap(),
                conditions.terminating.unwrap(),
            )
        };
        endpoints.iter().map(tell).collect::<Vec<_>>()
    };
    assert_eq!(
        conditions(false),
        [(true, true, false), (false, false, false), (false, true, true)]
    );
    assert_eq!(conditions(true), [(true, true, false), (true, false, false), (true, true, true)]);

    let slice = &reconcile(&service(IntOrString::Int(80)), &pods, zone, &[]).create[0];
    let first = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(first.zone.as_deref(), Some("zone-a"));
    assert_eq!(first.node_name.as_deref(), Some("n1"));
    assert_eq!(first.target_ref.as_ref().unwrap().name.as_deref(), Some("ready"));
    assert_eq!(slice.labels()[SERVICE_NAME], "web");
    assert_eq!(slice.labels()[MANAGED_BY], MANAGER);
    assert_eq!(slice.owner_references()[0].uid, "uid-web");
}

#[test]
fn slices_fill_up_and_empty_with_few_writes() {
    let service = service(IntOrString::Int(80));
    let mut fake = Fake::default();
    assert_eq!(fake.pass(&service, &pods(0..250)), (3, 0, 0));
    assert_eq!(fake.sizes(), [50, 100, 100]);
    assert_eq!(fake.pass(&service, &pods(0..251)), (0, 1, 0), "one more pod touches one slice");
    assert_eq!(fake.pass(&service, &pods(0..251)), (0, 0, 0));
    let (create, _, delete) = fake.pass(&service, &pods(0..40));
    assert_eq!(create, 0);
    assert!(delete >= 1);
    assert_eq!(fake.sizes().iter().sum::<usize>(), 40);
}

#[test]
fn service_without_pods_keeps_one_empty_slice() {
    let service = service(IntOrString::Int(80));
    let mut fake = Fake::default();
    assert_eq!(fake.pass(&service, &[]), (1, 0, 0));
    assert_eq!(fake.sizes(), [0]);
    let (create, update, delete) = fake.pass(&service, &pods(0..1));
    assert_eq!((create, update, delete), (0, 1, 0), "the empty slice is used");
    assert_eq!(fake.pass(&service, &[]), (0, 1, 0));
    assert_eq!(fake.sizes(), [0]);
}

#[test]
fn pods_with_other_port_numbers_get_their_own_slice() {
    let service = service(IntOrString::String("web".into()));
    let mut fake = Fake::default();
    let pods =
        shared(vec![serving("a", "10.0.0.1", true, 80), serving("b", "10.0.0.2", true, 8080)]);
    assert_eq!(fake.pass(&service, &pods), (2, 0, 0));
    let ports: BTreeSet<_> =
        fake.slices.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    assert_eq!(ports, BTreeSet::from([80, 8080]));
}

#[test]
fn headless_service_names_its_pods() {
    let mut service = service(IntOrString::Int(80));
    service.spec.as_mut().unwrap().cluster_ip = Some("None".into());
    let mut pod = serving("db-0", "10.0.0.1", true, 80);
    pod.spec.as_mut().unwrap().hostname = Some("db-0".into());
    pod.spec.as_mut().unwrap().subdomain = Some("web".into());
    let slice = &reconcile(&service, &shared(vec![pod]), zone, &[]).create[0];
    assert_eq!(slice.endpoints.as_ref().unwrap()[0].hostname.as_deref(), Some("db-0"));
    assert!(slice.labels().contains_key(service::HEADLESS));
}
