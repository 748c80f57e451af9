-- A price id is of one SKU, and so of one meter and unit.
SELECT "SkuPriceId", count(DISTINCT "SkuId") AS skus, count(DISTINCT "PricingUnit") AS units
FROM exported
GROUP BY "SkuPriceId"
HAVING count(DISTINCT "SkuId") > 1 OR count(DISTINCT "PricingUnit") > 1
