"""The shipped features and a third entity beside card and merchant: the device, as anyone would add it."""

from feature_store.definitions import Aggregate, Entity, Feature, Measure, Op, Tile, Writer
from feature_store.feature_set import FeatureSet
from feature_store.features import CARD_MEAN, ENTITIES, FEATURES, MERCHANT_DELAY

DEVICE = Entity("device", key="device_id", written_by=Writer.UPDATER)


def _device(measure, tile, window):
    return Aggregate(DEVICE, Op.TOTAL, measure, tile, window, MERCHANT_DELAY)


DEVICE_FEATURES = (
    Feature("device_count_1h", "value", (_device(Measure.COUNT, Tile.MINUTE, 60),)),
    Feature(
        "amount_over_device_mean_7d",
        "over_mean",
        (_device(Measure.COUNT, Tile.DAY, 7), _device(Measure.AMOUNT, Tile.DAY, 7)),
    ),
)
WITH_DEVICE = FeatureSet((*ENTITIES, DEVICE), (*FEATURES, *DEVICE_FEATURES), own_mean=CARD_MEAN)
