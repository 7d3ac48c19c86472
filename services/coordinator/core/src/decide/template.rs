//! Topologies under a name of the organization's own.

use swarm_events::{
    OrgId, Problem,
    command::{DeleteTemplate, SaveTemplate},
    configuration::{AGENTS_MAX, TopologyKind},
    org::{TEMPLATE_NAME_CHARS_MAX, TEMPLATES_MAX, TemplateDeleted, TemplateSaved},
    subject::OrgVerb,
    topology::Topology,
};

use super::{Outcome, one, org::about, topology::options};
use crate::{Coordinator, check};

/// The names of the templates that everybody has. They follow from the program, and are nobody's to change.
const SYSTEM: [&str; 4] = ["star", "mesh", "hierarchical", "ring"];

impl Coordinator {
    pub(super) fn save_template(&self, org: OrgId, order: &SaveTemplate) -> Outcome {
        let found = self.known_org(org)?;
        check::text("name", &order.name, TEMPLATE_NAME_CHARS_MAX)?;
        not_of_the_system(&order.name)?;
        check::description(order.description.as_deref())?;
        check::description_of("best_for", order.best_for.as_deref())?;
        if !found.templates.contains_key(&order.name) && found.templates.len() >= TEMPLATES_MAX {
            let count = found.templates.len();
            let detail = format!("the organization has {count} templates, the most that it may");
            return Err(Problem::new("too-many", detail)
                .field("name")
                .cure("delete one that is not needed, or save under its name"));
        }
        let topology = made(order.topology, order)?;
        let saved = TemplateSaved {
            name: order.name.clone(),
            description: order.description.clone(),
            best_for: order.best_for.clone(),
            topology,
        };
        one(about(org, OrgVerb::TemplateSaved, saved))
    }

    pub(super) fn delete_template(&self, org: OrgId, order: &DeleteTemplate) -> Outcome {
        let found = self.known_org(org)?;
        not_of_the_system(&order.name)?;
        if !found.templates.contains_key(&order.name) {
            let detail = format!("the organization has no template {:?}", order.name);
            return Err(Problem::new("unknown-template", detail)
                .field("name")
                .cure("list the templates: GET /topologies"));
        }
        let name = order.name.clone();
        one(about(
            org,
            OrgVerb::TemplateDeleted,
            TemplateDeleted { name },
        ))
    }
}

/// How many agents the swarms will have is not known here: the largest is assumed, and each swarm is checked for itself.
fn made(kind: TopologyKind, order: &SaveTemplate) -> Result<Topology, Problem> {
    Topology::of(kind).changed(kind, &options(&order.configuration), AGENTS_MAX)
}

fn not_of_the_system(name: &str) -> Result<(), Problem> {
    if !SYSTEM.iter().any(|of| of.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let detail = format!("{name} is the name of a topology itself");
    Err(Problem::new("reserved-name", detail)
        .field("name")
        .cure("choose another name"))
}
