// Package peer is the wire client of one federation peer: it posts a push (POST {base}/api/v1/sync/push of ai-memory 0.7)
// and says exactly what became of it.
//
// It knows bytes, never rows or jobs. It holds no state between pushes besides its connections, starts no goroutine that
// outlives it (after [Client.CloseIdle]), and logs nothing: every failure is returned as an [*Error] with a [Class] from a
// closed list, an [Outcome], and a text that holds neither a secret nor anything the peer wrote.
//
// Three rules shape the code:
//
//   - The bytes that are signed are the bytes that are sent. A body is encoded once ([Message.Encode]) and each attempt signs
//     it with a nonce of its own; net/http must therefore never replay a request by itself (see [Client.Post]).
//   - An acknowledgement is true or it is none. A 2xx answer counts only if it is a complete JSON object in which nothing was
//     skipped, refused for quota or unsupported, and whose ids, if it lists any, contain the expected one. [LenientAcks]
//     lets go of the JSON, and of nothing else.
//   - Nothing that the peer sends can hurt: answers are read up to 64 KiB within the deadline of the context, headers up to
//     16 KiB, redirects and compressed answers are refused, and every address is checked after name resolution ([Allowed]).
package peer
