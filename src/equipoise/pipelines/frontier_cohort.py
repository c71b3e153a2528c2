"""The trainings of a frontier as runs of one cohort, scored in shared batches on their way and at their end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from equipoise.evaluation.knowledge import evaluate_stack
from equipoise.models.loading import Loaded
from equipoise.models.lora_stack import LoraStack
from equipoise.pipelines.frontier import FrontierData, Readings, told_by_share, write_reading
from equipoise.pipelines.frontier_settings import FrontierRecipe
from equipoise.pipelines.knowledge_cohort import Trained, Validate


@dataclass(frozen=True)
class Training:
    """One training of a cohort, and when it is scored."""

    arm: str
    run: Trained
    plan: Readings


def read_stack(
    loaded: Loaded,
    recipe: FrontierRecipe,
    data: FrontierData,
    stack: LoraStack,
    wanted: Mapping[int, tuple[Training, str]],
    on_share: Callable[[int, float], None] = lambda place, share: None,
) -> dict[int, tuple[int, dict[str, float]]]:
    """Score some runs of a stack and write what they answered.

    Args:
        wanted: by its place in the stack, the training and the name of the reading.
        on_share: called with the place of a run and the share of its reading that is newly done.

    Returns:
        By place, the number of answers and what of them goes to `validation.jsonl`.
    """
    found = {}
    for rehearse in (False, True):  # an arm that rehearses is asked more
        mine = [i for i, (training, _) in wanted.items() if bool(recipe.arms[training.arm].rehearse) == rehearse]
        if not mine:
            continue
        asked, runs = data.tasks(rehearsed=rehearse), [wanted[i][0].run for i in mine]

        def tell(share: float, places: Sequence[int] = mine) -> None:
            for place in places:
                on_share(place, share)

        given = evaluate_stack(
            stack.some(mine),
            loaded,
            asked,
            runs=[(run.method, run.seed) for run in runs],
            how=recipe.evaluation,
            on_answers=told_by_share(loaded, recipe, asked, tell),
        )
        for i, run, predictions in zip(mine, runs, given):
            moved = data.drift(stack.model_of(i), run.method, run.seed)
            found[i] = len(predictions), write_reading(run.folder, wanted[i][1], predictions, moved)
            on_share(i, 0.0)  # the time that measuring the drift took
    return found


def read_on_the_way(
    loaded: Loaded,
    recipe: FrontierRecipe,
    data: FrontierData,
    trainings: Mapping[str, Training],
    on_share: Callable[[str, float], None] = lambda name, share: None,
) -> Validate:
    """What a cohort calls after each epoch, with the trainings by their runs' names.

    Args:
        on_share: called with a run's name and the share of its reading that is newly done.
    """

    def read(stack: LoraStack, names: Sequence[str], step: int) -> dict[str, dict[str, float]]:
        known = [trainings[name] for name in names]
        wanted = {i: (one, one.plan.due[step]) for i, one in enumerate(known) if step in one.plan.due}
        done = read_stack(loaded, recipe, data, stack, wanted, lambda i, share: on_share(names[i], share))
        return {name: done[i][1] if i in done else {} for i, name in enumerate(names)}

    return read
