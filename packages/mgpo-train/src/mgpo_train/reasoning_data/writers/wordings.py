"""The varied writer's wordings, several for each kind of statement."""

__all__ = ["WORDINGS"]

WORDINGS: dict[str, tuple[str, ...]] = {
    "image": ("Image {number}", "In image {number}", "The {ordinal} image", "In the {ordinal} image"),
    # after "Image 1" (even places of "image") and after "In image 1" (odd ones)
    "holds": ("shows {things}", "holds {things}", "contains {things}", "has {things}", "depicts {things}"),
    "in it": (
        "there {are} {things}",
        "I see {things}",
        "I find {things}",
        "I can see {things}",
        "I can make out {things}",
    ),
    "lacks": (", but no {asked}", ", yet it lacks the {asked}", "; there is no {asked}", ", without any {asked}"),
    "has none": ("has no {asked}", "does not show the {asked}", "lacks the {asked}", "holds no {asked}"),
    "none in it": (
        "there is no {asked}",
        "I see no {asked}",
        "I do not find the {asked}",
        "the {asked} is missing",
        "I look in vain: no {asked}",
    ),
    "pointed at": (
        "There, {region} marks the {label}.",
        "At {region} of this image is the {label}.",
        "The {label} is what {region} marks there.",
        "What lies at {region} there is the {label}.",
    ),
    "only": (
        "So the {asked} is only in image {number}.",
        "Only image {number} holds the {asked}.",
        "Of all the images, image {number} alone shows the {asked}.",
        "The {asked} is in image {number} and in none of the other images.",
        "That leaves image {number}: no other image holds the {asked}.",
    ),
    "same": (
        "{the_objects} are one and the same.",
        "{the_objects} are the same object.",
        "{the_objects} look identical: they are one thing.",
        "{the_objects} match; they are one and the same.",
    ),
    "common": (
        "What {images} have in common is the {label}.",
        "The {label} is common to {images}.",
        "{images} share the {label}.",
        "The {label} is the common object of {images}.",
        "The one thing in common to {images} is the {label}.",
    ),
    "differs": (
        "The difference is the {labels}: in image {number}, but not in {others}.",
        "The {labels} {are} in image {number}, but not in {others}.",
        "What differs is the {labels}, absent from {others} and present in image {number}.",
        "The {labels} {are} missing from {others}, but {are} in image {number}.",
    ),
    "adds": (
        "The difference is the {labels}.",
        "What is new in image {number} is the {labels}.",
        "What image {number} adds is the {labels}.",
        "The {labels} in image {number} {are} what differs.",
    ),
    "order": (
        "{images} follow each other in time.",
        "{images} are consecutive moments of one course of events.",
        "{images} are in order of time.",
        "What {images} show happens in time one after the other.",
    ),
    "view": (
        "{images} show the same scene from different sides.",
        "{images} are taken from different viewpoints of one place.",
        "It is the same scene in {images}, seen from different angles.",
        "{images} look at the same scene from different directions.",
    ),
    "object": (
        "The {label} of image {number} lies {position}, at {region}.",
        "I find the {label} {position} of image {number}, at {region}.",
        "The {label} is in image {number}, {position}: {region}.",
        "There is the {label} {position} of image {number}; its box is {region}.",
        "The {label} sits {position} of image {number}, within {region}.",
    ),
    "attribute": (
        "Its {key} is {value}.",
        "Its {key}: {value}.",
        "The {key} of it is {value}.",
        "As to its {key}: {value}.",
    ),
    "answer": (
        "So the answer is the {label} in image {number}.",
        "The answer is therefore in image {number}.",
        "Hence this {label} in image {number} is the answer.",
        "That makes the {label} of image {number} the answer.",
        "My answer is this box of image {number}.",
        "That settles it: the {label} in image {number}.",
    ),
}
