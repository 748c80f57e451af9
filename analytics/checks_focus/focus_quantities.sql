-- Only a correction takes anything back.
SELECT "x_RowId", "PricingQuantity", "ListCost", "BilledCost"
FROM exported
WHERE "ChargeClass" IS NULL AND ("PricingQuantity" <= 0 OR "ListCost" < 0 OR "ContractedCost" < 0)
