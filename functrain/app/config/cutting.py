"""The batches of a configuration cut in equal parts, which an exact reduction adds up in one order."""

from functrain.app.config.schema import Config


def in_parts(config: Config) -> Config:
    """The same run with `distributed.shards` times as many micro-batches, each of so many times fewer examples.

    Its updates see the same examples. What counts batches counts the parts; evaluation is as it was. Under a fast
    reduction it is the configuration itself.
    """
    parts = config.distributed.parts
    if parts == 1:
        return config
    data, training, evaluation = config.data, config.training, config.evaluation
    limit = training.limit_batches
    more = {"accumulate": training.accumulate * parts}
    if isinstance(limit, int):
        more["limit_batches"] = limit * parts
        if evaluation.eval_limit_batches is None:
            evaluation = evaluation.model_copy(update={"eval_limit_batches": limit})
    if training.overfit_batches is not None:
        more["overfit_batches"] = training.overfit_batches * parts
    smaller = {"batch_size": data.batch_size // parts, "eval_batch_size": data.eval_batch_size or data.batch_size}
    return config.model_copy(
        update={
            "data": data.model_copy(update=smaller),
            "training": training.model_copy(update=more),
            "evaluation": evaluation,
        }
    )
