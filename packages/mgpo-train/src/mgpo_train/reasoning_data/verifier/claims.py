"""Claims against the annotations: whatever the annotations do not say is false."""

from __future__ import annotations

from collections.abc import Iterator

from mgpo_core.samples.annotations import AnnotatedObject, Relation
from mgpo_train.reasoning_data.trace import Claim, ObjectClaim, RelationClaim
from mgpo_train.reasoning_data.verifier.facts import Facts, folded
from mgpo_train.reasoning_data.verifier.problems import Problem, Reason

__all__ = ["claim_problems"]

_ORDERED = ("differs", "order")
"""Relations in which the order of the images matters."""


def claim_problems(claim: Claim, facts: Facts) -> Iterator[Problem]:
    """What the annotations contradict in a claim."""
    images = claim.images if isinstance(claim, RelationClaim) else (claim.image,)
    unknown = [image + 1 for image in images if not 0 <= image < facts.count]
    if unknown:
        yield Problem(Reason.NO_SUCH_IMAGE, f"image {unknown[0]} of {facts.count}: {claim}")
    elif isinstance(claim, ObjectClaim):
        yield from _object_problems(claim, facts)
    elif not any(_is_relation(claim, relation, facts) for relation in facts.annotated.relations):
        yield Problem(Reason.FALSE_RELATION, f"no such relation is annotated: {claim}")


def _object_problems(claim: ObjectClaim, facts: Facts) -> Iterator[Problem]:
    objects = facts.objects(claim.label, claim.image)
    where = f"{claim.label!r} in image {claim.image + 1}"
    if bool(objects) != claim.present:
        reason = Reason.FALSE_PRESENCE if claim.present else Reason.FALSE_ABSENCE
        yield Problem(reason, f"there are {len(objects)} of {where}")
        return
    if claim.count is not None and claim.count != len(objects):
        yield Problem(Reason.FALSE_COUNT, f"there are {len(objects)} of {where}, not {claim.count}")
    if claim.box is not None:
        numbers = facts.view.numbers(claim.box)
        objects = [item for item in objects if facts.is_box(numbers, item.box)]
        if not objects:
            yield Problem(Reason.FALSE_BOX, f"no {where} is at {numbers}")
            return
    if claim.attributes and not any(_has(item, claim) for item in objects):
        yield Problem(Reason.FALSE_ATTRIBUTE, f"no {where} is annotated with {dict(claim.attributes)}")


def _has(item: AnnotatedObject, claim: ObjectClaim) -> bool:
    known, claimed = ({(folded(key), folded(value)) for key, value in one.attributes.items()} for one in (item, claim))
    return claimed <= known


def _is_relation(claim: RelationClaim, relation: Relation, facts: Facts) -> bool:
    same_images = claim.images == relation.images
    if claim.kind not in _ORDERED:
        same_images = set(claim.images) == set(relation.images)
    labels = {folded(facts.annotated.objects[place].label) for place in relation.objects}
    return claim.kind == relation.kind and same_images and {*map(folded, claim.labels)} <= labels
