-- Unit price times quantity is the cost, to a nano-dollar for each call and what fifteen decimals of a price round off.
SELECT "x_RowId", "ListUnitPrice", "PricingQuantity", "ListCost", "ContractedUnitPrice", "ContractedCost"
FROM exported
WHERE abs(CAST("ListUnitPrice" AS DOUBLE) * CAST("PricingQuantity" AS DOUBLE) - CAST("ListCost" AS DOUBLE)) > 1e-9 * greatest(1, abs("x_Calls")) + 1e-15 * abs("PricingQuantity")
  OR abs(CAST("ContractedUnitPrice" AS DOUBLE) * CAST("PricingQuantity" AS DOUBLE) - CAST("ContractedCost" AS DOUBLE)) > 1e-9 * greatest(1, abs("x_Calls")) + 1e-15 * abs("PricingQuantity")
