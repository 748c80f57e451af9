-- What has a closed list of values has one of them, in each row.
SELECT "x_RowId", "ChargeCategory", "ChargeClass", "ChargeFrequency", "PricingCategory", "PricingUnit", "BillingCurrency"
FROM exported
WHERE "ChargeCategory" IS DISTINCT FROM 'Usage' OR coalesce("ChargeClass", 'Correction') <> 'Correction'
  OR "ChargeFrequency" IS DISTINCT FROM 'Usage-Based' OR "PricingCategory" NOT IN ('Standard', 'Dynamic')
  OR "PricingUnit" NOT IN ('Tokens', 'Requests') OR "ConsumedUnit" <> "PricingUnit" OR "BillingCurrency" <> 'USD'
  OR "ServiceCategory" <> 'AI and Machine Learning' OR "ServiceSubcategory" <> 'Generative AI'
