module tidegate.example/tests/clients/go

go 1.24.0

require github.com/launchdarkly/api-client-go/v22 v22.0.0

require gopkg.in/validator.v2 v2.0.1 // indirect
